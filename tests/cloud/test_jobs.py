"""Training jobs on the local service: their code, channels, logs, artifacts and reasons."""

import json
import tarfile
import time

import pytest

from helpers.cloud import jobs
from helpers.cloud.store import pack
from helpers.errors import CourseError

TYPE = "ml.g5.2xlarge"


def create(cloud, tmp_path, name, script, channels=(), longest=600, **options):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "train.py").write_text(script)
    code = cloud.upload(pack(folder, tmp_path / f"{name}.tar.gz"), f"code/{name}.tar.gz")
    given = dict(instance_type=TYPE, longest=longest)
    cloud.create("training_job", **jobs.training_request(cloud, name, code, options, dict(channels), **given))
    return name


def state(cloud, name):
    return cloud.sagemaker.describe_training_job(TrainingJobName=name)


def test_a_job_gets_its_options_and_channels_and_keeps_what_it_makes(cloud, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.jsonl").write_text("a line\n")
    uri = cloud.upload(data, "some-data")
    script = (
        "import json, os, pathlib, sys\n"
        "out = pathlib.Path(os.environ['SM_MODEL_DIR'])\n"
        "read = pathlib.Path(os.environ['SM_CHANNEL_TRAIN'], 'train.jsonl').read_text()\n"
        "print('first\\n\\nsecond')\n"
        "made = {'options': sys.argv[1:], 'read': read, 'hps': os.environ['SM_HPS']}\n"
        "(out / 'made.json').write_text(json.dumps(made))\n"
    )
    place = "/opt/ml/input/data/train/train.jsonl"
    name = create(cloud, tmp_path, "good", script, {"train": uri}.items(), words="two words", file=place)
    assert [line for line in jobs.follow(cloud, name, every=0.1) if line] == ["first", "second"]
    assert state(cloud, name)["TrainingJobStatus"] == "Completed"
    made = json.loads((jobs.artifact(cloud, name, tmp_path / "made") / "made.json").read_text())
    options = dict(zip(made["options"][::2], made["options"][1::2], strict=True))
    assert made["read"] == "a line\n" and options["--words"] == "two words"
    assert options["--file"].endswith("/input/data/train/train.jsonl") and not options["--file"].startswith("/opt")
    assert json.loads(made["hps"])["words"] == "two words"


def test_a_failing_job_says_why(cloud, tmp_path):
    name = create(cloud, tmp_path, "bad", "print('begin')\nraise ValueError('no sense in it')\n")
    lines = []
    with pytest.raises(CourseError, match=r'Failed: .*ExitCode 1 ErrorMessage "ValueError: no sense in it"'):
        for line in jobs.follow(cloud, name, every=0.1):
            lines.append(line)
    assert lines[0] == "begin" and lines[-1] == "ValueError: no sense in it"
    with pytest.raises(CourseError, match="has no artifact"):
        jobs.artifact(cloud, name, tmp_path / "none")


def test_a_job_without_code_fails_by_its_reason(cloud, tmp_path):
    name = create(cloud, tmp_path, "codeless", "pass")
    request = dict(
        jobs.training_request(cloud, "nothing", "s3://course/no/code.tar.gz", {}, {}, instance_type="ml.g5.2xlarge")
    )
    cloud.create("training_job", **request)
    with pytest.raises(CourseError, match=r"Failed: ClientError: code.tar.gz can't be unpacked"):
        list(jobs.follow(cloud, "nothing", every=0.1))
    assert list(jobs.follow(cloud, name, every=0.1)) == []


def test_a_job_that_is_stopped_or_takes_too_long(cloud, tmp_path):
    endless = "import time\nprint('on', flush=True)\ntime.sleep(600)\n"
    name = create(cloud, tmp_path, "endless", endless)
    while not any(jobs._new_lines(cloud, name, None)[0]):
        time.sleep(0.1)
    cloud.sagemaker.stop_training_job(TrainingJobName=name)
    with pytest.raises(CourseError, match="is Stopped: it was stopped"):
        list(jobs.follow(cloud, name, every=0.1))
    name = create(cloud, tmp_path, "slow", endless, longest=1)
    with pytest.raises(CourseError, match="MaxRuntimeInSeconds"):
        list(jobs.follow(cloud, name, every=0.1))


def test_names_of_jobs_are_taken_once(cloud, tmp_path):
    name = create(cloud, tmp_path, "once", "pass")
    with pytest.raises(cloud.sagemaker.exceptions.ResourceInUse, match="must be unique"):
        cloud.sagemaker.create_training_job(
            **jobs.training_request(cloud, name, "s3://course/x", {}, {}, instance_type="ml.g5.2xlarge")
        )


def test_the_packed_course_is_whole_and_has_no_compiled_code(tmp_path):
    archive = jobs.pack_code("helpers.training.fine_tune_llm", tmp_path / "code.tar.gz")
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        script = tar.extractfile("train.py").read().decode()
    assert {"train.py", "requirements.txt", "helpers/training/fine_tune_llm.py"} <= set(names)
    assert not any("__pycache__" in name for name in names) and "helpers.training.fine_tune_llm" in script


def test_logs_that_are_not_there_yet_are_no_lines(cloud, monkeypatch):
    def missing(**asked):
        raise cloud.logs.exceptions.ResourceNotFoundException({"Error": {"Code": "ResourceNotFoundException"}}, "a")

    monkeypatch.setattr(cloud.logs, "describe_log_streams", missing)
    assert jobs._new_lines(cloud, "first", None) == ([], None)


def test_a_request_that_lacks_something_fails_and_nobody_waits(cloud):
    request = jobs.training_request(cloud, "odd", "s3://course/x.tar.gz", {}, {}, instance_type=TYPE)
    request["HyperParameters"]["sagemaker_submit_directory"] = "5"
    cloud.create("training_job", **request)
    with pytest.raises(CourseError, match="Failed: ClientError"):
        list(jobs.follow(cloud, "odd", every=0.1))
