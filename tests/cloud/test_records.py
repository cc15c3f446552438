"""What was created is deleted: in order, again where it was in use, and whatever fails in between."""

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError

from helpers.cloud.records import FILES, Entry, Records, delete


def error(sentence):
    return ClientError({"Error": {"Code": "ValidationException", "Message": sentence}}, "Delete")


class Service:
    """Deletes by the script: for each name what is raised, one time after the other."""

    def __init__(self, **raised):
        self.raised, self.calls, self.status = raised, [], "InProgress"

    def _call(self, kind, name):
        self.calls.append(f"{kind} {name}")
        if self.raised.get(name):
            raise self.raised[name].pop(0)

    def __getattr__(self, operation):
        kind = operation.removeprefix("delete_").removeprefix("stop_")
        return lambda **named: self._call(kind, next(iter(named.values())))

    def describe_training_job(self, TrainingJobName):
        return {"TrainingJobStatus": self.status}

    def remove(self, uri):
        self._call("files", uri)


@pytest.fixture
def records(tmp_path):
    found = Records(tmp_path / "created")
    for kind, name in ((FILES, "s3://a/b"), ("model", "m"), ("endpoint", "e"), ("training_job", "j")):
        found.add(Entry("aws", "s", kind, name))
    found.add(Entry("local", "s", "model", "other"))
    return found


def test_in_order_and_files_last(records):
    service = Service()
    assert delete(records, records.all("aws"), service, service, 0.0) == []
    assert service.calls == ["endpoint e", "model m", "training_job j", "files s3://a/b"]
    assert records.all("aws") == [] and len(records.all("local")) == 1
    assert [path.name for path in records.folder.iterdir()] == ["local-s.json"]


def test_one_that_fails_stops_no_other_and_is_tried_again(records):
    timeout = ConnectTimeoutError(endpoint_url="http://a")
    service = Service(e=[error("Cannot update in-progress endpoint"), timeout], m=[error('Could not find model "m".')])
    assert delete(records, records.all("aws"), service, service, 5.0, every=0.01) == []
    assert service.calls.count("endpoint e") == 3 and service.calls.count("model m") == 1


def test_what_stays_is_still_known(records):
    service = Service(e=[error("in use")] * 9)
    left = delete(records, records.all("aws"), service, service, 0.0)
    assert left == records.all("aws") == [Entry("aws", "s", "endpoint", "e")]


def test_a_job_that_has_ended_is_only_forgotten(records):
    service = Service()
    service.status = "Completed"
    delete(records, records.all("aws"), service, service, 0.0)
    assert "training_job j" not in service.calls
