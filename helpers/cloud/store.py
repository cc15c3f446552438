"""A folder that stands for S3: `s3://bucket/key` is a file under it (notebook 12)."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

from helpers.errors import CourseError


class LocalStore:
    """Files by their S3 addresses."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, uri: str) -> Path:
        """Where an address lies; CourseError for one that is no address, or leads out of the folder."""
        scheme, _, key = uri.partition("://")
        place = (self.folder / key).resolve()
        if scheme != "s3" or not key or not place.is_relative_to(self.folder.resolve()):
            raise CourseError(f"{uri!r} is no address in S3: write s3://bucket/key.")
        return place

    def upload(self, source: Path, uri: str) -> str:
        """Copy a file or a folder there; returns the address."""
        target = self.path(uri)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copy2(source, target)
        else:
            raise CourseError(f"There is nothing at {source}: name a file or a folder.")
        return uri

    def download(self, uri: str, target: Path) -> Path:
        """A file or a folder of the store, as a copy."""
        source = self.path(uri)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.is_file():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / source.name)
        else:
            raise CourseError(f"There is nothing at {uri}.")
        return target


def pack(folder: Path, archive: Path) -> Path:
    """A folder's content as a .tar.gz, as SageMaker wants models and code: its files at the top."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
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
