"""The tree keeps its own promises: every test is run, every command the README
names exists, the package list holds what the build asks for.

Arguments: programs that were built (heparctl, hepard, ...); their --help is
what the README is compared with.
"""
import os
import re
import subprocess
import sys

import house


def tests_that_nobody_runs():
    for path in house.files():
        found = re.fullmatch(r"(tests/\w+)/(test_\w+)\.(c|cc|py)", path)
        if not found:
            continue
        folder, name = found.group(1), found.group(2)
        build = house.text(folder + "/meson.build") if os.path.exists(
            os.path.join(house.ROOT, folder, "meson.build")) else ""
        # Named whole, or by its noun in a list.
        if name not in build and not re.search(rf"'{name[5:]}'", build):
            yield f"{path}: no line in {folder}/meson.build runs it"


def commands_of(readme):
    """(program, verb) for each command in the README's indented or fenced blocks."""
    inside = False
    for line in readme.splitlines():
        if line.startswith("```"):
            inside = not inside
        elif inside:
            words = line.split("#")[0].split()
            while words and re.fullmatch(r"\$|sudo|\w+=\S*", words[0]):
                words.pop(0)
            if words:
                options = [w for w in words[1:] if re.fullmatch(r"[a-z]+|--[a-z-]+", w)]
                yield words[0], options[0] if options else None


def commands_that_do_not_exist(programs):
    help_of = {"./dev": subprocess.run([os.path.join(house.ROOT, "dev"), "help"], text=True,
                                       capture_output=True).stdout}
    for program in programs:
        done = subprocess.run([program, "--help"], text=True, capture_output=True, timeout=60)
        help_of[os.path.basename(program)] = done.stdout + done.stderr
    for program, verb in commands_of(house.text("README.md")):
        if program in help_of and verb and not re.search(
                rf"(?<![\w-]){re.escape(verb)}\b", help_of[program]):
            yield f"README.md: `{program} {verb}`: {program} --help does not know it"
        if programs and program.startswith(("hepar", "./")) and program not in help_of \
                and not os.path.exists(os.path.join(house.ROOT, program)):
            yield f"README.md: `{program}` does not exist"


def main():
    faults = list(tests_that_nobody_runs())
    if os.path.exists(os.path.join(house.ROOT, "README.md")):
        faults += commands_that_do_not_exist(sys.argv[1:])
    house.finish(faults)


main()
