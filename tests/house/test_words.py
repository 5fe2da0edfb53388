"""Words that have no business in the tree: places and habits of one workshop,
left-over markers, and keys."""
import re

import house

# Spelled in pieces, so that this file does not find itself.
FORBIDDEN = [
    (r"/wor" + r"k/(?!.*github)", "a path of somebody's machine"),
    (r"/ho" + r"me/\w", "a path of somebody's machine"),
    (r"sub-?agen" + r"t", "who wrote it is not the code's business"),
    (r"contracts\.m" + r"d", "a working note"),
    (r"\bissue #?\d", "trackers move; say the reason itself"),
    (r"issues sho" + r"w", "trackers move; say the reason itself"),
    (r"\b(FI" + r"XME|XX" + r"X|HAC" + r"K)\b", "mend it or say what is so"),
    (r"<<<<<<" + r"< |>>>>>>" + r"> ", "a merge left open"),
    (r"BEGIN [A-Z ]*PRIVATE K" + r"EY", "a key"),
]
BINARY = re.compile(r"\.(png|dcm|safetensors|gz|xz|nii|bin|jpg|pdf)$")


def main():
    faults = []
    for path in house.files():
        # LICENSE is not ours to word; corpora are bytes.
        if BINARY.search(path) or path == "LICENSE" or "/corpus/" in path:
            continue
        for number, line in enumerate(house.text(path).splitlines(), 1):
            for pattern, why in FORBIDDEN:
                if re.search(pattern, line):
                    faults.append(f"{path}:{number}: {why}: {line.strip()[:80]}")
    house.finish(faults)


main()
