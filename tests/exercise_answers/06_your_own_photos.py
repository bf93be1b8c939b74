"""Answers to the exercises of notebook 06: wrong ones with words of their hint, and right ones."""

CHOOSE = """\
names = sorted(set(birds))
random.Random(seed).shuffle(names)
chosen = set(names[: round(share * len(names))])
return [position for position, bird in enumerate(birds) if bird in chosen]
"""
LOOK = """\
grey = np.asarray(image.convert("L").resize((9, 8)), np.int16)
return (grey[:, 1:] > grey[:, :-1]).ravel()
"""
RANK = """\
options = {"cv": StratifiedKFold(5), "method": "predict_proba"}
probabilities = cross_val_predict(make_probe(), features, labels, **options)
return probabilities[np.arange(len(labels)), labels].argsort()
"""

WRONG = {
    1: [
        (
            "names = {path.name for path in train}\n"
            "return [path for path in test if path.name in names]",
            "has only its name in common",
        ),
        (
            "sizes = {path.stat().st_size for path in train}\n"
            "return [path for path in test if path.stat().st_size in sizes]",
            "has only its size in common",
        ),
        (
            "starts = {path.open('rb').read(8) for path in train}\n"
            "return [path for path in test if path.open('rb').read(8) in starts]",
            "begins like a training file",
        ),
        (
            "seen, found = set(), []\n"
            "for path in [*train, *test]:\n"
            "    if path.read_bytes() in seen:\n"
            "        found.append(path)\n"
            "    seen.add(path.read_bytes())\n"
            "return found",
            "is the same as 7.jpg",
        ),
        ("return [path for path in test if path in train]", "under another name"),
        ("return any(a.read_bytes() == b.read_bytes() for a in train for b in test)", "not True"),
    ],
    2: [
        (
            "positions = list(range(len(birds)))\n"
            "random.Random(seed).shuffle(positions)\n"
            "return positions[: round(share * len(birds))]",
            "birds are on both sides",
        ),
        (CHOOSE.replace("sorted(set(birds))", "list(set(birds))"), "in a new Python session"),
        (
            "return [i for i, b in enumerate(birds) if hash((seed, b)) % 100 < 100 * share]",
            "in a new Python session",
        ),
        (CHOOSE.replace("random.Random(seed).shuffle(names)\n", ""), "two seeds"),
        (CHOOSE.replace("random.Random(seed)", "random"), "the second time"),
        ("test = set(birds[:300])\nreturn [bird in test for bird in birds]", "not yes or no"),
        (CHOOSE.replace("in chosen", "not in chosen"), "of the photos are chosen"),
        (
            CHOOSE.replace("names = sorted(set(birds))", "names = sorted(birds)"),
            "of the photos are chosen",
        ),
    ],
    3: [
        (
            "grey = np.asarray(image.convert('L'), np.int16)\n"
            "return (grey[:, 1:] > grey[:, :-1]).ravel()",
            "bring it to one size",
        ),
        (
            "grey = np.asarray(image.convert('L').resize((9, 8)), np.int16)\nreturn grey > 120",
            "not with a fixed number",
        ),
        ("return np.asarray(image.convert('L').resize((9, 8)))", "ask for yes or no"),
        (
            "digest = hashlib.sha256(image.tobytes()).digest()\n"
            "return np.unpackbits(np.frombuffer(digest, np.uint8))",
            "bytes and size must not matter",
        ),
        (
            "grey = np.asarray(image.convert('L').resize((16, 16)), np.int16)\n"
            "left, right = grey[:, :8], grey[:, :7:-1]\n"
            "return abs(left - right) > abs(left - right).mean()",
            "for a mirrored image",
        ),
        ("return np.ones(64, bool)", "left and right must matter"),
        (LOOK.replace('.convert("L")', ""), "first make every image grey"),
        (LOOK.replace("(9, 8)", "(5, 4)"), "16 values are too few"),
    ],
    4: [
        (RANK.replace("argsort()", "argsort()[::-1]"), "reverse the order"),
        (
            "probabilities = make_probe().fit(features, labels).predict_proba(features)\n"
            "return probabilities[np.arange(len(labels)), labels].argsort()",
            "has learned from it",
        ),
        (
            RANK.replace(
                "return probabilities[np.arange(len(labels)), labels].argsort()",
                "return probabilities.max(axis=1).argsort()",
            ),
            "how improbable is the given label",
        ),
        (RANK.replace(".argsort()", ""), "just once"),
        (RANK.replace(".argsort()", ".argsort()[:48]"), "just once"),
        (
            "from sklearn.model_selection import KFold\n"
            + RANK.replace("StratifiedKFold(5)", "KFold(6)"),
            "a probe that knows all classes",
        ),
    ],
}

RIGHT = {
    1: [
        "return [b for b in test if any(a.read_bytes() == b.read_bytes() for a in train)]",
        "import filecmp\n"
        "return {b for b in test for a in train if filecmp.cmp(a, b, shallow=False)}",
    ],
    2: [
        "from sklearn.model_selection import GroupShuffleSplit\n"
        "split = GroupShuffleSplit(1, test_size=share, random_state=seed)\n"
        "return next(split.split(birds, groups=birds))[1]",
        "names, counts = np.unique(birds, return_counts=True)\n"
        "order = np.random.default_rng(seed).permutation(len(names))\n"
        "enough = (counts[order].cumsum() < share * len(birds)).sum()\n"
        "return np.flatnonzero(np.isin(birds, names[order[:enough]]))",
        "return [\n"
        "    i for i, b in enumerate(birds) if zlib.crc32(f'{seed} {b}'.encode()) < share * 2**32\n"
        "]",
    ],
    3: [
        "grey = np.asarray(image.convert('L').resize((8, 8)), float)\nreturn grey > grey.mean()",
        "from going_modular import audit\nreturn audit.difference_hash(image)[0] > 0",
        "from scipy.fft import dctn\n"
        "grey = np.asarray(image.convert('L').resize((32, 32)), float)\n"
        "waves = dctn(grey)[:8, :8]\n"
        "return waves > np.median(waves)",
        "import torch\n"
        "grey = np.asarray(image.convert('L').resize((8, 17), Image.Resampling.BOX), float)\n"
        "return torch.tensor(grey).diff(dim=0) > 0",
    ],
    4: [
        "from going_modular import audit\nreturn audit.suspicious_labels(features, labels)[0]",
        "from sklearn.neighbors import NearestNeighbors\n"
        "_, near = NearestNeighbors(n_neighbors=11, metric='cosine').fit(features).kneighbors()\n"
        "return (labels[near] == labels[:, None]).mean(axis=1).argsort().tolist()",
        RANK.replace("return probabilities[np.arange(len(labels)), labels].argsort()", "")
        + "given = probabilities[np.arange(len(labels)), labels]\n"
        "return (given - probabilities.max(axis=1)).argsort(kind='stable')",
        "scores = np.empty(len(labels))\n"
        "positions = np.random.default_rng(0).permutation(len(labels))\n"
        "for fold in np.array_split(positions, 10):\n"
        "    others = np.setdiff1d(positions, fold)\n"
        "    probe = make_probe().fit(features[others], labels[others])\n"
        "    probabilities = probe.predict_proba(features[fold])\n"
        "    scores[fold] = probabilities[np.arange(len(fold)), labels[fold]]\n"
        "return np.argsort(scores)",
    ],
}
