"""What the house tests share: the tree, as git knows it or as it lies on disk."""
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SKIPPED_FOLDERS = {".git", ".venv", ".train", "__pycache__", "node_modules"}


def files():
    """Paths of the tree relative to its root, without what building left there."""
    try:
        listed = subprocess.run(
            ["git", "-C", ROOT, "-c", "safe.directory=*", "ls-files", "-co",
             "--exclude-standard", "-z"],
            check=True, capture_output=True).stdout.decode()
        found = sorted({p for p in listed.split("\0") if p})
    except (OSError, subprocess.CalledProcessError):  # a tarball has no git
        found = []
        for folder, subfolders, names in os.walk(ROOT):
            subfolders[:] = [s for s in subfolders
                             if s not in SKIPPED_FOLDERS and not s.startswith("build")]
            found += [os.path.relpath(os.path.join(folder, n), ROOT) for n in names]
    return sorted(p for p in found if os.path.isfile(os.path.join(ROOT, p)))


def text(path):
    with open(os.path.join(ROOT, path), encoding="utf-8", errors="replace") as f:
        return f.read()


def finish(faults):
    """Prints the faults, one a line, and leaves with the exit code meson expects."""
    for fault in faults:
        print(fault)
    print(f"{len(faults)} faults")
    sys.exit(1 if faults else 0)
