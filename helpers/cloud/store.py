"""Files by their S3 addresses: a folder that stands for S3, or S3 itself (notebook 12)."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Protocol

from helpers.errors import CourseError


class Store(Protocol):
    """Both take files and folders, and raise CourseError for an address that is none, or where nothing is."""

    def upload(self, source: Path, uri: str) -> str:
        """Copy a file or a folder there; returns the address."""

    def download(self, uri: str, folder: Path) -> Path:
        """Copy a file, or what lies under an address, into a folder; returns the folder."""

    def remove(self, uri: str) -> None:
        """Delete a file, or what lies under an address, if it is there."""


class LocalStore:
    """`s3://bucket/key` is a file under a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, uri: str) -> Path:
        """Where an address lies; CourseError for one that leads out of the folder, too."""
        place = self.folder.joinpath(*split(uri)).resolve()
        if not place.is_relative_to(self.folder.resolve()):
            raise CourseError(f"{uri!r} leads out of the store: write s3://bucket/key.")
        return place

    def upload(self, source: Path, uri: str) -> str:
        _copy(source, self.path(uri))
        return uri

    def download(self, uri: str, folder: Path) -> Path:
        source = self.path(uri)
        _copy(source, folder if source.is_dir() else folder / source.name)
        return folder

    def remove(self, uri: str) -> None:
        place = self.path(uri)
        if place.is_dir():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)


class S3Store:
    """S3 by boto3's client."""

    def __init__(self, s3):
        self.s3 = s3

    def upload(self, source: Path, uri: str) -> str:
        bucket, key = split(uri)
        for path in files_of(source):
            name = key if path == source else f"{key}/{path.relative_to(source).as_posix()}"
            self.s3.upload_file(str(path), bucket, name)
        return uri

    def download(self, uri: str, folder: Path) -> Path:
        bucket, key = split(uri)
        if not (names := self._names(bucket, key)):
            raise CourseError(f"There is nothing at {uri}.")
        for name in names:
            target = folder / (Path(key).name if name == key else name.removeprefix(f"{key}/"))
            target.parent.mkdir(parents=True, exist_ok=True)
            self.s3.download_file(bucket, name, str(target))
        return folder

    def remove(self, uri: str) -> None:
        bucket, key = split(uri)
        for name in self._names(bucket, key):
            self.s3.delete_object(Bucket=bucket, Key=name)

    def _names(self, bucket: str, key: str) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
        names = [each["Key"] for page in pages for each in page.get("Contents", [])]
        return [name for name in names if name == key or name.startswith(f"{key}/")]


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of an address."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not bucket or not key.strip("/"):
        raise CourseError(f"{uri!r} is no address in S3: write s3://bucket/key.")
    return bucket, key.strip("/")


def files_of(source: Path) -> list[Path]:
    """A file, or all files in a folder; CourseError where there is none."""
    found = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    if not found:
        raise CourseError(f"There is nothing at {source}: name a file or a folder.")
    return found


def _copy(source: Path, target: Path) -> None:
    files_of(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)


def pack(folder: Path, archive: Path) -> Path:
    """A folder's content as a .tar.gz, as SageMaker wants models and code: its files at the top."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:  # weights hardly shrink
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name, filter=_plain)
    return archive


def unpack(archive: Path, folder: Path) -> Path:
    """An archive's content; members that lead out of the folder are refused."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, OSError, EOFError) as reason:
        raise CourseError(f"{archive.name} can't be unpacked ({reason}): pack it anew.") from None
    return folder


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Without owners, and without compiled code."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return None if "__pycache__" in member.name else member
