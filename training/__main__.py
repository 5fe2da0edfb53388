"""`./dev train`: phantoms in, models/small out. See training/README.md.

Every step resumes: data skips files that exist, a network goes on from its
checkpoint, and a finished step is not repeated. --quick spends thirty minutes and
fewer phantoms; --golden only rewrites tests/golden (seconds).
"""
import argparse
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Minutes on two cores, and how many studies of each kind are rendered.
FULL = {"minutes": {"liver": 40, "detector": 150, "keyslice": 45, "ksf": 10, "trunk": 70, "classify": 7},
        "studies": {"detect": 1000, "slices": 1000, "liver": 200, "seg": 300, "candidates": 200,
                    "primaries": 10000},
        "test108": 108, "test400": 400}
QUICK = {"minutes": {"liver": 4, "detector": 8, "keyslice": 2, "ksf": 1, "trunk": 3, "classify": .4},
         "studies": {"detect": 60, "slices": 100, "liver": 24, "seg": 30, "candidates": 16,
                     "primaries": 300},
         "test108": 27, "test400": 0}
STEPS = ["data", "liver", "detector", "keyslice", "trunk", "classify", "candidates", "ksf", "export",
         "ablations", "evaluate"]

# With --start: what is neither trained on from the bundle nor needed for that.
NOT_STARTED = ("liver", "keyslice", "trunk")


def parse():
    p = argparse.ArgumentParser(prog="./dev train", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="half an hour, a smaller but real bundle")
    p.add_argument("--golden", action="store_true", help="only rewrite tests/golden")
    p.add_argument("--steps", help="comma-separated, of: " + " ".join(STEPS))
    p.add_argument("--data", help="folder of training tensors (default .train/data)")
    p.add_argument("--work", help="folder of checkpoints (default .train/full or .train/quick)")
    p.add_argument("--out", default=os.path.join(HERE, "models", "small"))
    p.add_argument("--build", default=os.path.join(HERE, "build"))
    p.add_argument("--threads", type=int, default=0, help="0: all cores")
    p.add_argument("--start", metavar="BUNDLE",
                   help="detector, ksf and classify start from this bundle's weights; a network "
                        "that has no checkpoint is taken from it as it is")
    p.add_argument("--size-gain", type=float, default=1., metavar="X",
                   help="export: the detector's sizes times this (measure it on validation patients)")
    p.add_argument("--class-logits", metavar="A,B,C,D",
                   help="export: added to the classes' logits, for cohorts of another mix")
    p.add_argument("--device", default="cpu")
    p.add_argument("--minutes", help="override budgets: liver=5,detector=20,...")
    p.add_argument("--allow-missing", action="store_true",
                   help="export random weights for a network that has no checkpoint")
    return p.parse_args()


def prepare(args, first, count, *options):
    """hepar-prepare over [first, first + count), one process for each core."""
    cores = os.cpu_count() or 1
    tool = os.path.join(args.build, "daemon", "hepar-prepare")
    bounds = [first + count * i // cores for i in range(cores + 1)]
    running = [subprocess.Popen([tool, "--phantom", f"{a}..{b}", "--threads", "1", *options])
               for a, b in zip(bounds, bounds[1:]) if b > a]
    if any([p.wait() for p in running]):
        sys.exit(f"{tool} failed")


def step_data(args, plan, run):
    from . import steps
    for what, count in plan["studies"].items():
        if what == "candidates":
            continue
        parts = ((0, min(count, 400)), (400, 60), (460, count - 400))
        if what == "primaries":
            parts = ((steps.MORE_PRIMARIES, count), (steps.VALID_PRIMARIES, max(30, count // 12)))
        print(f"data: {what}, {count} studies and those for validation", flush=True)
        for first, n in parts:
            if n > 0:
                prepare(args, first, n, "--what", what, "--out", args.data)


def step_candidates(args, plan, run):
    """What the detector finds on phantoms that it never saw (seeds B)."""
    from . import export, steps
    folder = os.path.join(args.work, "bundle")
    export.export(run, folder, args, allow_missing=True)
    prepare(args, steps.KSF_SEEDS[0], plan["studies"]["candidates"], "--candidates",
            "--bundle", folder, "--out", args.data)


def step_export(args, run):
    from . import export, golden_bundle
    export.export(run, args.out, args, args.allow_missing)
    golden_bundle.write(args.out, lambda what: run.files(what, lambda s: True),
                        os.path.join(HERE, "tests", "golden", "small.safetensors"))


def step_evaluate(args, plan, run):
    from . import evaluate, report
    metrics = os.path.join(args.work, "evaluate")
    prepare(args, 1_000_000, plan["test108"], "--cohort", "test108", "--evaluate",
            "--bundle", args.out, "--out", os.path.join(metrics, "test108"))
    if plan["test400"]:
        prepare(args, 1_100_000, plan["test400"], "--cohort", "test400", "--evaluate",
                "--truth-boxes-only", "--bundle", args.out, "--out",
                os.path.join(metrics, "test400"))
        prepare(args, 1_100_000, plan["test400"], "--cohort", "test400", "--what", "primaries",
                "--out", args.data)
    evaluate.report(metrics, args.out, run.work, args.data)
    report.write(args.out)


def main():
    args = parse()
    if args.golden:
        from . import golden
        golden.write(os.path.join(HERE, "tests", "golden"))
        return
    import torch
    torch.set_num_threads(args.threads or os.cpu_count() or 1)
    from . import steps
    plan = QUICK if args.quick else FULL
    minutes = dict(plan["minutes"])
    for item in (args.minutes or "").split(","):
        if item:
            name, value = item.split("=")
            minutes[name] = float(value)
    args.data = os.path.abspath(args.data or os.path.join(HERE, ".train", "data"))
    args.work = os.path.abspath(args.work or os.path.join(
        HERE, ".train", "quick" if args.quick else "full"))
    run = steps.Run(args.data, args.work, minutes, args.device, args.start)
    functions = {
        "data": lambda: step_data(args, plan, run),
        "liver": lambda: steps.train_liver(run),
        "detector": lambda: steps.train_detector(run),
        "keyslice": lambda: steps.train_keyslice(run),
        "trunk": lambda: steps.train_trunk(run),
        "classify": lambda: steps.train_classify(run),
        "candidates": lambda: step_candidates(args, plan, run),
        "ksf": lambda: steps.train_ksf(run),
        "export": lambda: step_export(args, run),
        "ablations": lambda: None if args.quick else steps.train_ablations(run),
        "evaluate": lambda: step_evaluate(args, plan, run),
    }
    wanted = args.steps.split(",") if args.steps else \
        [s for s in STEPS if not (args.start and s in NOT_STARTED)]
    for name in wanted:
        if name not in functions:
            sys.exit(f"unknown step {name!r}; known: {' '.join(STEPS)}")
    for name in wanted:
        t0 = time.monotonic()
        print(f"== {name}", flush=True)
        functions[name]()
        print(f"== {name} took {(time.monotonic() - t0) / 60:.1f} min", flush=True)


if __name__ == "__main__":
    main()
