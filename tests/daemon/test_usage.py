"""Every program explains itself: --help is usage on stdout and exit code 0; a word
that it does not know is exit code 2 with something on stderr."""
import subprocess
import sys


def run(program, *args):
    return subprocess.run([program, *args], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=60)


for program in sys.argv[1:]:
    helped, refused = run(program, "--help"), run(program, "--no-such-option")
    assert helped.returncode == 0, f"{program} --help ends with {helped.returncode}"
    assert "usage: " in helped.stdout, f"{program} --help prints no usage"
    assert not helped.stderr, f"{program} --help: {helped.stderr}"
    assert refused.returncode == 2, f"{program}: a wrong word gives {refused.returncode}"
    assert refused.stderr and not refused.stdout, f"{program}: a wrong word is not named"

# heparctl knows a wrong word before it asks for a configuration.
ctl = next(p for p in sys.argv[1:] if p.endswith("heparctl"))
for words in (["nonsense"], ["config", "chek"], ["show"], ["jobs", "1"], ["wait", "1", "--timeout", "x"],
              ["jobs", "--timeout", "3"]):
    code = run(ctl, "--config", "/nonexistent.yaml", *words).returncode
    assert code == 2, f"heparctl {words} gives {code}"
assert run(ctl, "--config", "/nonexistent.yaml", "jobs").returncode == 1
