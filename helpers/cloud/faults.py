"""What SageMaker answers to what it can't do, by its own names (notebook 12)."""

from __future__ import annotations

from helpers.errors import CourseError

ACCOUNT, REGION = "000000000000", "local"


class ServiceFault(CourseError):
    """`kind` is the error's code in boto3; `status` the HTTP status; `more` what stands beside the message."""

    def __init__(self, kind: str, sentence: str, status: int = 400, **more):
        super().__init__(sentence)
        self.kind, self.status, self.more = kind, status, more


def arn(kind: str, name: str) -> str:
    """The Amazon resource name of something here."""
    return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{kind}/{name.lower()}"


def not_found(words: str, kind: str, name: str) -> ServiceFault:
    return ServiceFault("ValidationException", f'Could not find {words} "{arn(kind, name)}".')


def exists_already(words: str, kind: str, name: str) -> ServiceFault:
    return ServiceFault("ValidationException", f'Cannot create already existing {words} "{arn(kind, name)}".')
