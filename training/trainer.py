"""The loop all networks share: time-boxed, resumable, guarded.

A budget is minutes of wall clock, not steps: the learning rate follows the share of
the budget that is spent, so that a slow machine ends with a finished schedule too.
The checkpoint keeps the time spent; starting again goes on where it stopped.
"""
import math
import os
import random
import time

import torch

GRAD_BAD = 1e3  # bf16 weight gradients of tiny shapes have been seen at 1e18
CLIP = 35.
WARMUP_STEPS = 50
CHECKPOINT_S = 60


class Trainer:
    def __init__(self, name, net, folder, minutes, lr, weight_decay=0., seed=0, channels_last=None):
        self.name, self.net, self.minutes, self.lr = name, net, minutes, lr
        self.path = os.path.join(folder, name + ".pt")
        os.makedirs(folder, exist_ok=True)
        self.spent_s, self.step, self.skipped, self.log = 0., 0, 0, []
        if channels_last is not None:
            net.to(memory_format=channels_last)
        params = [p for p in net.parameters() if p.requires_grad]
        opt = torch.optim.AdamW if weight_decay else torch.optim.Adam
        self.opt = opt(params, lr=lr, **({"weight_decay": weight_decay} if weight_decay else {}))
        self.rng = random.Random(f"{name} {seed}")
        self.extra = {}
        if os.path.exists(self.path):
            self.load()

    def load(self):
        c = torch.load(self.path, weights_only=False)
        self.net.load_state_dict(c["net"])
        self.opt.load_state_dict(c["opt"])
        self.spent_s, self.step, self.skipped = c["spent_s"], c["step"], c["skipped"]
        self.log, self.extra = c["log"], c.get("extra", {})
        self.rng.seed(f"{self.name} {self.step}")
        print(f"{self.name}: resumed at step {self.step}, {self.spent_s / 60:.1f} min spent",
              flush=True)

    def save(self):
        torch.save({"net": self.net.state_dict(), "opt": self.opt.state_dict(),
                    "spent_s": self.spent_s, "step": self.step, "skipped": self.skipped,
                    "log": self.log, "extra": self.extra}, self.path + ".part")
        os.replace(self.path + ".part", self.path)

    def done(self):
        return self.spent_s >= self.minutes * 60

    def share(self):
        return min(1., self.spent_s / (self.minutes * 60))

    def rate_now(self):
        share = self.share()
        warm = min(1., (self.step + 1) / WARMUP_STEPS)
        return self.lr * warm * (.01 + .99 * .5 * (1 + math.cos(math.pi * share)))

    def update(self, loss):
        """Backward, guard, clip, step. False: the step was skipped."""
        loss.backward()
        params = [p for g in self.opt.param_groups for p in g["params"] if p.grad is not None]
        worst = float(torch.stack([p.grad.abs().max() for p in params]).max())
        ok = math.isfinite(worst) and worst <= GRAD_BAD
        if ok:
            torch.nn.utils.clip_grad_norm_(params, CLIP)
            for g in self.opt.param_groups:
                g["lr"] = self.rate_now()
            self.opt.step()
        else:
            self.skipped += 1
        self.opt.zero_grad(set_to_none=True)
        return ok

    def run(self, loss_of_batch, validate=None, validate_s=300, report_s=20):
        """loss_of_batch(trainer) -> (loss, {name: float}); validate() -> dict."""
        self.net.train()
        sums, count, reported = {}, 0, time.monotonic()
        saved = validated = time.monotonic()
        while not self.done():
            t0 = time.monotonic()
            loss, parts = loss_of_batch(self)
            self.update(loss)
            self.step += 1
            for k, v in {"loss": float(loss.detach()), **parts}.items():
                sums[k] = sums.get(k, 0.) + float(v)
            count += 1
            now = time.monotonic()
            self.spent_s += now - t0
            if now - reported > report_s:
                means = {k: round(v / count, 4) for k, v in sums.items()}
                self.log.append({"step": self.step, "min": round(self.spent_s / 60, 2), **means})
                words = " ".join(f"{k}={v:g}" for k, v in means.items())
                print(f"{self.name}: {100 * self.spent_s / (self.minutes * 60):3.0f} % step {self.step}"
                      f" {words} lr={self.rate_now():.2g} skipped={self.skipped}"
                      f" {1000 * (now - reported) / count:.0f} ms/step", flush=True)
                sums, count, reported = {}, 0, now
            if now - saved > CHECKPOINT_S:
                self.save()
                saved = now
            if validate and now - validated > validate_s:
                self.check(validate)
                reported = validated = time.monotonic()
        if validate and not self.extra.get("final"):
            self.extra["final"] = self.check(validate)
        self.save()

    def check(self, validate):
        self.net.eval()
        with torch.no_grad():
            figures = validate()
        self.net.train()
        self.log.append({"step": self.step, "min": round(self.spent_s / 60, 2), "valid": figures})
        print(f"{self.name}: validation at step {self.step}: {figures}", flush=True)
        return figures
