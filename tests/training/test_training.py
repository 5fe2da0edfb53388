"""What training/ promises the C side. Skips (77) where torch is not installed."""
import os
import random
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

try:
    import torch
    from safetensors import safe_open

    from training import bundle, data, decode, golden, losses, standin, steps
    from training.nets import build, fold, recentre, unfold
    from training.nets.sadt import grid_mask
except ImportError as missing:
    print(f"skipped: training needs {missing.name}")
    sys.exit(77)

GOLDEN = os.path.join(ROOT, "tests", "golden")


class Golden(unittest.TestCase):
    def test_files_match_the_code(self):
        torch.set_num_threads(1)
        for name, case in golden.CASES.items():
            made = golden.make(*case)
            with safe_open(os.path.join(GOLDEN, name + ".safetensors"), "pt") as f:
                self.assertEqual(set(f.keys()), set(made), name)
                for key in made:
                    kept, now = f.get_tensor(key).float(), made[key].detach().float()
                    bound = 1e-4 * float(kept.abs().max()) + 1e-5
                    self.assertLessEqual(float((kept - now).abs().max()), bound, f"{name} {key}")

    def test_folding_is_exact(self):
        for name, (arch, params, size) in golden.CASES.items():
            net = golden.seeded(arch, params)
            folded = build(arch, params, folded=True).eval()
            folded.load_state_dict(fold(net), strict=True)
            args = [torch.randn(size)]
            if arch == "sadt":
                args.append(grid_mask(golden.BOXES[:size[0]], size[2:], params["output_stride"]))
                if params["mask_input"]:
                    args.append(grid_mask(golden.BOXES[:size[0]], size[2:], 1))
            with torch.no_grad():
                a, b = net(*args), folded(*args)
            for key in a:
                self.assertTrue(torch.allclose(a[key], b[key], rtol=1e-4, atol=1e-4), name)

    def test_a_network_starts_from_a_bundle(self):
        for name, (arch, params, size) in golden.CASES.items():
            folded = fold(golden.seeded(arch, params))
            net = build(arch, params).eval()
            self.assertEqual(unfold(net, folded), len(folded), name)
            for stage in ("unfolded", "recentred"):
                if stage == "recentred":
                    args = [torch.randn(2, *size[1:])]
                    if arch == "sadt":
                        args.append(grid_mask(golden.BOXES[:2], size[2:], params["output_stride"]))
                        if params["mask_input"]:
                            args.append(grid_mask(golden.BOXES[:2], size[2:], 1))
                    recentre(net, [args])
                again = fold(net)
                for key, v in folded.items():
                    self.assertTrue(torch.allclose(again[key], v, rtol=1e-4,
                                                   atol=1e-4 * float(v.detach().abs().max())),
                                    f"{name} {stage} {key}")

    def test_parameter_counts_are_the_papers(self):
        def millions(stage, change):
            spec = bundle.SMALL[stage]
            with torch.device("meta"):
                net = build(spec["arch"], {**spec["params"], **change}, folded=True)
            return sum(p.numel() for p in net.parameters()) / 1e6
        full = bundle.PAPER["detector"]["params"]
        # 569.3 M with both stacks' heads; a bundle holds the last stack's alone
        self.assertAlmostEqual(millions("detector", full), 569.3 - 5.33, delta=.1)
        self.assertAlmostEqual(millions("detector", {}), 2.03, delta=.01)
        self.assertAlmostEqual(millions("classify", {"width": .5, "D": 128, "K": 32}), 2.85, delta=.01)


class Targets(unittest.TestCase):
    def test_radius_keeps_cornernets_root(self):
        self.assertEqual([int(losses.gaussian_radius(d, d)) for d in (3, 4, 7, 8, 12, 16, 24)],
                         [0, 1, 1, 2, 3, 4, 6])

    def test_a_target_decodes_to_its_boxes(self):
        boxes = torch.tensor([[10., 40., 60., 22., 80., 120.], [30., 100., 20., 38., 130., 44.]])
        hm, whd, off, _ = losses.detector_target(boxes, (24, 44, 64), (2, 4, 4), (4.2, 1., .94))
        logit = torch.logit(hm.clamp(1e-6, 1 - 1e-6))[None]
        scores, found = decode.decode(logit, whd, off, (2, 4, 4))
        self.assertEqual(int((scores > .99).sum()), 2)
        for box in boxes:
            self.assertGreater(float(decode.iou(box, found[:2]).max()), .999)

    def test_a_box_between_cells_gets_the_cell_of_its_centre(self):
        mask = grid_mask([[30.1, 25.2, 33.9, 28.8]], (64, 64))
        self.assertEqual(mask[0, 0].nonzero().tolist(), [[4, 3]])


class Steps(unittest.TestCase):
    def test_each_network_takes_a_step_and_exports(self):
        with tempfile.TemporaryDirectory() as d:
            for seed in [*range(45), 400, 401]:
                standin.write(d, seed)
            run = steps.Run(d, d + "/work", {})
            files = run.files("detect", steps.is_train)
            rng = random.Random(1)
            x, boxes, spacing = data.detector_sample(files, rng)
            self.assertEqual((tuple(x.shape), len(spacing)), ((1, 16, 64, 64), 3))
            self.assertEqual(boxes.shape[1], 6)
            x, y = data.liver_sample(run.files("liver", steps.is_train), rng, (8, 16, 16))
            self.assertEqual(x.shape, y.shape)
            x, y = data.seg_sample(run.files("seg", steps.is_train), rng, crop=64)
            self.assertEqual((tuple(x.shape), tuple(y.shape)), ((9, 64, 64), (1, 64, 64)))
            patches = steps.Patches(steps.sadt_files(run, steps.is_train), steps.classify_label)
            x, mask, label = steps.sadt_batch(patches.refresh()[:2], rng, "cpu", crop=64)
            self.assertEqual(tuple(mask.shape), (2, 1, 8, 8))
            self.assertEqual(len(label), 2)


if __name__ == "__main__":
    unittest.main()
