"""Habits that a compiler does not check: who may log, who may exit, who may
read decimal text. Rules are regular expressions over code without comments."""
import re

import house

ROOMS = r"(base|config|db|dicom|kernels|inference|daemon)/"
# (what must not stand there, where, except in, why)
RULES = [
    (r"\bhp_log\(", ROOMS, r"(daemon/|base/log\.)", "only daemon/ logs; return the error"),
    (r"\b(strtod|atof|atoi|atol|strtof|strtold|sscanf)\(", ROOMS, r"base/number\.c",
     "decimal text is read by base/number, blind to the locale"),
    (r"(?<![\w_.>])(exit|_exit|quick_exit|abort)\(", ROOMS,
     r"(daemon/(hepard|worker|sender|heparctl|prepare|run|child)\w*\.c|base/number\.c|base/crash\.c)",
     "exit() belongs to the mains"),
    (r"\bsetlocale\(", ROOMS, r"$^", "one locale for everybody: none"),
    (r"\b(gets|strcat|sprintf|vsprintf|tmpnam|mktemp)\(", ROOMS, r"$^", "unbounded or racy"),
    (r"\b(system|popen)\(", ROOMS, r"$^", "no shell between us and our children"),
    (r"\bprintf\(", r"(base|config|db|dicom|kernels|inference)/", r"$^",
     "rooms return values; the mains print"),
    (r"\btime\(NULL\)|\bgettimeofday\(", ROOMS, r"base/clock\.c", "base/clock has the two clocks"),
]


def without_comments(text):
    """Comments and strings become blanks; line numbers stay."""
    blank = lambda m: re.sub(r"[^\n]", " ", m.group())
    return re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', blank, text, flags=re.S)


def main():
    faults = []
    for path in house.files():
        if not re.search(r"\.(c|h|cc|hh)$", path) or not re.match(ROOMS, path):
            continue
        lines = without_comments(house.text(path)).splitlines()
        for pattern, where, besides, why in RULES:
            if re.match(where, path) and not re.match(besides, path):
                faults += [f"{path}:{n}: {why}: {line.strip()}"
                           for n, line in enumerate(lines, 1) if re.search(pattern, line)]
    house.finish(faults)


main()
