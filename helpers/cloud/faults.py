"""What SageMaker answers to what it can't do, by its own names (notebook 12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.errors import CourseError

if TYPE_CHECKING:
    from helpers.cloud.kinds import Kind

ACCOUNT, REGION = "000000000000", "local"


class ServiceFault(CourseError):
    """`kind` is the error's code in boto3; `status` the HTTP status; `more` what stands beside the message."""

    def __init__(self, kind: str, sentence: str, status: int = 400, **more):
        super().__init__(sentence)
        self.kind, self.status, self.more = kind, status, more


def arn(kind: Kind, name: str) -> str:
    """The Amazon resource name of something here."""
    return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{kind.address}/{name.lower()}"


def not_found(kind: Kind, name: str) -> ServiceFault:
    if kind.operation == "TrainingJob":
        return ServiceFault("ValidationException", "Requested resource not found.")
    return ServiceFault("ValidationException", f'Could not find {kind.words} "{arn(kind, name)}".')


def exists_already(kind: Kind, name: str) -> ServiceFault:
    if kind.operation == "TrainingJob":
        unique = "Job name must be unique within an AWS account and region, and a job with this name already exists"
        return ServiceFault("ResourceInUse", f"{unique} ({arn(kind, name)}).")
    return ServiceFault("ValidationException", f'Cannot create already existing {kind.words} "{arn(kind, name)}".')


def in_use(words: str, kind: Kind, name: str) -> ServiceFault:
    return ServiceFault("ValidationException", f'{words} "{arn(kind, name)}".')
