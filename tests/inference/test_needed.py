"""The programs start on a host without CUDA: none needs a library of it, or one
that only the module may bring.

Arguments: the programs. Exit 77 where readelf is missing.
"""
import re
import shutil
import subprocess
import sys

if shutil.which("readelf") is None:
    print("readelf is missing")
    sys.exit(77)
faults = []
for program in sys.argv[1:]:
    dynamic = subprocess.run(["readelf", "-d", program], text=True, capture_output=True,
                             check=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.*?)\]", dynamic)
    if not needed:
        faults.append(f"{program}: readelf shows no libraries")
    faults += [f"{program}: needs {name}" for name in needed
               if re.search(r"cuda|cudnn|cublas|nvrtc|nvidia", name)]
print("\n".join(faults))
sys.exit(1 if faults else 0)
