"""The doors between rooms, and which room may know which library.

Moving a wall is fine: change the table here and say why in the commit.
"""
import re

import house

# room: the rooms whose headers it may include, besides its own
DOORS = {
    "base": [],
    "config": ["base"],
    "db": ["base"],
    "dicom": ["base"],
    "kernels": ["base"],
    "inference": ["base", "kernels"],
    "daemon": ["base", "config", "db", "dicom", "inference"],
    # These see everything.
    "tests": ["base", "config", "db", "dicom", "kernels", "inference", "daemon", "bench"],
    "bench": ["base", "config", "db", "dicom", "kernels", "inference", "daemon", "tests"],
}

# One file through one wall, each with its reason.
EXCEPTIONS = {
    # hepar-prepare renders synthetic patients in memory, so that training sees
    # exactly what the pipeline sees; the daemon itself never does.
    ("daemon/prepare.h", "tests"),
    ("daemon/prepare.c", "tests"),
    ("daemon/prepare_phantom.c", "tests"),
    ("daemon/prepare_evaluate.c", "tests"),
    ("daemon/prepare_evaluate.c", "kernels"),
    ("daemon/prepare_phantom.c", "kernels"),
}

# A library's headers, and the only places that include them (tests and bench
# may, to look at a room's work from outside).
LIBRARIES = [
    (r"yaml\.h", r"base/yaml\.c"),          # config and bundles read YAML through base/yaml.h
    (r"jansson\.h", r"base/json\.h"),       # the rest of the house says base/json.h
    (r"sqlite3\.h", r"db/.*"),
    (r"dcmtk/.*", r"dicom/.*(_dcmtk\.cc|\.hh)"),
    (r"(openjpeg.*/)?openjpeg\.h", r"dicom/.*"),
    (r"(cairo/)?cairo.*\.h", r"dicom/.*"),
    (r"(oneapi/)?(dnnl/)?dnnl.*\.h", r"inference/.*"),
    (r"cudnn.*\.h", r"inference/.*"),
    # memory and stream capture are the back end's, and stand in one file there
    (r"cuda.*\.h", r"kernels/.*|inference/cuda/gpu\.c"),
    (r"uv\.h", r"daemon/.*"),
    (r"openssl/.*", r"daemon/.*"),
    (r"microhttpd\.h", r"daemon/.*"),
    (r"zlib\.h", r"dicom/precheck\.c|tests/.*"),
    (r"cmocka\.h", r"tests/.*"),
]

LIBC = set("""
    arpa/inet.h assert.h ctype.h dirent.h dlfcn.h endian.h errno.h fcntl.h fenv.h float.h
    ftw.h getopt.h glob.h grp.h immintrin.h inttypes.h limits.h locale.h malloc.h math.h
    netdb.h netinet/in.h netinet/tcp.h omp.h poll.h pthread.h pwd.h sched.h semaphore.h
    setjmp.h signal.h stdarg.h stdatomic.h stdbool.h stddef.h stdint.h stdio.h stdlib.h
    stdnoreturn.h string.h strings.h syslog.h termios.h time.h ucontext.h unistd.h
    cpuid.h linux/close_range.h linux/limits.h linux/magic.h spawn.h
    """.split())
STANDARD_CPP = re.compile(r"[a-z_]+")  # <vector>, <cstring>: no dot
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
SOURCE = re.compile(r"\.(c|h|cc|hh|cu|cuh)$")


def fault_of(path, room, kind, name):
    """Why this include is wrong, or None."""
    if kind == '"':
        other = name.split("/")[0]
        if "/" not in name or other not in DOORS:
            return "write it from the root: room/name.h"
        inside = other == room
        if not inside and other not in DOORS[room] and (path, other) not in EXCEPTIONS:
            return f"{room}/ has no door to {other}/"
        private = re.search(r"(_internal\.h|\.hh|\.cuh)$", name)
        if private and not inside and room != "tests":
            return f"{name} stays inside {other}/"
        return None
    for library, places in LIBRARIES:
        if re.fullmatch(library, name):
            if re.fullmatch(places, path) or room in ("tests", "bench"):
                return None
            return f"<{name}> belongs to {places}"
    if name in LIBC or name.startswith("sys/"):
        return None
    if STANDARD_CPP.fullmatch(name) and path.endswith((".cc", ".hh", ".cu", ".cuh")):
        return None
    return f"<{name}> is in no room's list"


def main():
    faults = []
    for path in house.files():
        room = path.split("/")[0]
        if not SOURCE.search(path):
            continue
        if room not in DOORS:
            faults.append(f"{path}: no such room")
            continue
        if path.endswith(".cc") and not re.fullmatch(r"(dicom/.*_dcmtk|tests/.*|bench/.*)\.cc", path):
            faults.append(f"{path}: C++ lives in dicom/*_dcmtk.cc only")
        for number, line in enumerate(house.text(path).splitlines(), 1):
            found = INCLUDE.match(line)
            if found:
                fault = fault_of(path, room, *found.groups())
                if fault:
                    faults.append(f"{path}:{number}: {fault}")
    house.finish(faults)


main()
