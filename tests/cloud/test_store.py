"""Files by their S3 addresses, in a folder and on S3 itself."""

import io
import tarfile

import boto3
import pytest
from botocore.stub import Stubber

from helpers.cloud.store import LocalStore, S3Store, pack, split, unpack
from helpers.errors import CourseError


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "some"
    (place / "deep").mkdir(parents=True)
    (place / "a.txt").write_text("a")
    (place / "deep" / "b.txt").write_text("b")
    return place


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_folders_and_files_come_back(tmp_path, folder):
    store = LocalStore(tmp_path / "s3")
    uri = store.upload(folder, "s3://course/data")
    assert content(store.download(uri, tmp_path / "back")) == content(folder)
    assert content(store.download(f"{uri}/a.txt", tmp_path / "one")) == {"a.txt": "a"}


@pytest.mark.parametrize("wrong", ["course/a", "s3://course", "s3:///a", "s3://course/", "http://course/a"])
def test_what_is_no_address(tmp_path, wrong):
    with pytest.raises(CourseError, match="no address in S3"):
        split(wrong)


def test_nothing_leads_out_of_the_store(tmp_path):
    with pytest.raises(CourseError, match="leads out"):
        LocalStore(tmp_path / "s3").path("s3://course/../../secret")
    archive = tmp_path / "bad.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../out"), io.BytesIO())
    with pytest.raises(CourseError, match="can't be unpacked"):
        unpack(archive, tmp_path / "in")
    assert not (tmp_path / "out").exists()


def test_nothing_there_is_said(tmp_path):
    store = LocalStore(tmp_path / "s3")
    for call in (lambda: store.download("s3://course/x", tmp_path), lambda: store.upload(tmp_path / "x", "s3://c/x")):
        with pytest.raises(CourseError, match="There is nothing at"):
            call()


def test_archives_have_their_files_at_the_top(tmp_path, folder):
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "c.pyc").write_text("c")
    back = unpack(pack(folder, tmp_path / "model.tar.gz"), tmp_path / "back")
    assert content(back) == {"a.txt": "a", "deep/b.txt": "b"}


def test_s3_gets_every_file_of_a_folder(tmp_path, folder, monkeypatch):
    options = dict(region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    s3, sent, taken = boto3.client("s3", **options), [], []
    monkeypatch.setattr(s3, "upload_file", lambda path, bucket, key: sent.append((bucket, key)))
    monkeypatch.setattr(s3, "download_file", lambda bucket, key, path: taken.append((key, path)))
    store = S3Store(s3)
    assert store.upload(folder, "s3://course/data") == "s3://course/data"
    assert sorted(sent) == [("course", "data/a.txt"), ("course", "data/deep/b.txt")]
    with Stubber(s3) as answers:
        listed = {"Contents": [{"Key": "data/a.txt"}, {"Key": "data/deep/b.txt"}, {"Key": "database"}]}
        answers.add_response("list_objects_v2", listed, {"Bucket": "course", "Prefix": "data"})
        store.download("s3://course/data", tmp_path / "back")
        answers.add_response("list_objects_v2", {}, {"Bucket": "course", "Prefix": "none"})
        with pytest.raises(CourseError, match="There is nothing"):
            store.download("s3://course/none", tmp_path / "back")
    back = tmp_path / "back"
    assert taken == [("data/a.txt", str(back / "a.txt")), ("data/deep/b.txt", str(back / "deep" / "b.txt"))]
