"""Operations by their names."""

import pytest

from helpers.cloud.faults import ServiceFault
from helpers.cloud.kinds import COMPONENT, CONFIG, ENDPOINT, JOB, MODEL, parse


@pytest.mark.parametrize(
    ("operation", "verb", "kind"),
    [
        ("CreateModel", "Create", MODEL),
        ("DescribeEndpointConfig", "Describe", CONFIG),
        ("ListEndpoints", "List", ENDPOINT),
        ("DeleteInferenceComponent", "Delete", COMPONENT),
        ("StopTrainingJob", "Stop", JOB),
    ],
)
def test_what_is_done_locally(operation, verb, kind):
    assert parse(operation) == (verb, kind)


@pytest.mark.parametrize(
    "operation", ["", "Model", "ListEndpoint", "CreateEndpoints", "StopModel", "DeleteTrainingJob"]
)
def test_what_is_not(operation):
    with pytest.raises(ServiceFault, match="is not done locally"):
        parse(operation)
