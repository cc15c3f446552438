"""A request to SageMaker against botocore's own model of it: no network, no account (notebook 12b).

botocore checks names, kinds and what is required before it sends; values of a list of choices only AWS checks. Here
these are checked, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import botocore.session
from botocore.model import ServiceModel, Shape
from botocore.validate import ParamValidator

from helpers.errors import CourseError


def validate(operation: str, request: dict) -> dict:
    """The request as it is; CourseError with everything that SageMaker would refuse about its form."""
    model = _model()
    if operation not in model.operation_names:
        raise CourseError(f"SageMaker has no operation {operation!r}: boto3 is older than it, or it is misspelled.")
    shape = model.operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    found = report.generate_report().splitlines() if report.has_errors() else list(_wrong_choices(request, shape, ""))
    if found:
        raise CourseError(f"{operation}: {'; '.join(line.rstrip('.') for line in found)}.")
    return request


def _wrong_choices(value, shape: Shape, where: str) -> Iterator[str]:
    if shape.type_name == "structure":
        for name, part in value.items():
            if name in shape.members:
                yield from _wrong_choices(part, shape.members[name], f"{where}.{name}".lstrip("."))
    elif shape.type_name == "list":
        for part in value:
            yield from _wrong_choices(part, shape.member, where)
    elif shape.type_name == "string" and shape.enum and value not in shape.enum:
        known = ", ".join(shape.enum) if len(shape.enum) < 10 else f"{len(shape.enum)} others"
        yield f"{where} is {value!r}, and there are {known}"


@lru_cache(maxsize=1)
def _model() -> ServiceModel:
    return botocore.session.get_session().get_service_model("sagemaker")
