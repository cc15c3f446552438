"""Notebook 12b: requests, planted mistakes, and the SDK's names."""

from helpers.cloud.optimization import optimization_request, recipes
from helpers.notebook import cloud_library, cloud_toolkit

NOTEBOOK = "12b_optimization_jobs"
WHERE, WHO = ("s3://bucket/model/", "s3://bucket/out/"), ("arn:aws:iam::000000000000:role/mine", "ml.g5.2xlarge")


def test_mistakes_are_counted(results, capsys, monkeypatch):
    found = recipes("bucket")
    request = optimization_request("a", *WHERE, *WHO, [found["awq"]])
    cloud_toolkit.check_mistakes(results, request)
    assert results.invariants["toolkit.mistakes_are_found"] == {"holds": True, "count": 4, "of": 4}
    monkeypatch.setattr(cloud_toolkit, "validate", lambda operation, request: request)
    cloud_toolkit.check_mistakes(results, request)
    assert results.invariants["toolkit.mistakes_are_found"]["count"] == 0


def test_requests_are_counted(results, capsys):
    found = recipes("bucket")
    cloud_toolkit.check_requests(results, found, WHERE, WHO)
    assert results.invariants["toolkit.requests_are_valid"] == {"holds": True, "count": 5, "of": 5}
    cloud_toolkit.check_requests(results, found, WHERE, ("no role", "ml.laptop"))
    assert results.invariants["toolkit.requests_are_valid"]["count"] == 0


def test_names_are_looked_up():
    assert cloud_library.exists("os.path.join") and cloud_library.exists("json.JSONDecoder.decode")
    assert not cloud_library.exists("os.path.no_such") and not cloud_library.exists("no_such_module.a")
