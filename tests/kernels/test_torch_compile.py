"""torch.compile works where the library's folder has a space, and is left out with one sentence where it can't."""

import shlex

import pytest
from torch._inductor import cpp_builder, cpu_vec_isa
from torch.utils import cpp_extension

from helpers.errors import CourseError
from helpers.kernels import torch_compile

needs_compiler = pytest.mark.skipif(torch_compile.why_not() is not None, reason=str(torch_compile.why_not()))


@pytest.fixture
def folder_with_a_space(tmp_path, monkeypatch):
    """PyTorch's libraries, as they would lie in /home/me/my courses, and PyTorch without the remedy."""
    methods = cpp_builder.BuildOptionsBase
    own = getattr(methods.get_libraries_dirs, "unquoted", methods.get_libraries_dirs)
    monkeypatch.setattr(methods, "get_libraries_dirs", own)
    link = tmp_path / "it's my courses"
    link.symlink_to(cpp_extension.TORCH_LIB_PATH)
    monkeypatch.setattr(cpp_extension, "TORCH_LIB_PATH", str(link))
    return link


def words(folder):
    """The line that torch.compile calls the compiler with, taken apart as it takes it apart."""
    options = cpp_builder.CppTorchOptions(vec_isa=cpu_vec_isa.invalid_vec_isa)
    return shlex.split(cpp_builder.CppBuilder("name", "source.cpp", options, str(folder)).get_command_line())


@needs_compiler
def test_a_library_in_a_folder_with_a_space_is_named_whole(folder_with_a_space, tmp_path):
    with pytest.raises(ValueError, match="No closing quotation"):
        words(tmp_path)
    torch_compile.prepare()
    torch_compile.prepare()  # twice is once
    assert f"-L{folder_with_a_space}" in words(tmp_path)


@pytest.mark.parametrize("path, fine", [("/tmp/ab", True), ("/tmp/a b", False), ("/tmp/it's", False), ("/tmp/ü", True)])
def test_a_path_is_one_word_or_not(path, fine):
    assert torch_compile.is_one_word(path) is fine


def test_without_a_compiler_there_is_a_sentence(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert torch_compile.compiler() is None
    with pytest.raises(
        CourseError, match=r"torch\.compile can't work here: there is no C\+\+ compiler: `apt install g\+\+`"
    ):
        torch_compile.prepare()


def test_a_cache_in_a_folder_with_a_space_is_a_sentence(monkeypatch):
    monkeypatch.setattr(torch_compile, "compiler", lambda: "g++")
    assert torch_compile.why_not() is None
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/tmp/my cache")
    assert "(/tmp/my cache): set TORCHINDUCTOR_CACHE_DIR to another" in torch_compile.why_not()
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setattr(torch_compile.tempfile, "gettempdir", lambda: "/tmp/it's mine")
    assert "(/tmp/it's mine): set TMPDIR to another" in torch_compile.why_not()
