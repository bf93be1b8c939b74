# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] slideshow={"slide_type": "slide"}
# # 10 · Can you trust it?
#
# The team that sorts charts wants to send the easy ones straight to their tools, and the others to a
# person. So accuracy is not enough. Does the model know when it may be wrong? And is it right for the
# right reason?
#
# **You will**
# - check whether confidence means what it says, beside a noise floor, and correct it;
# - let a model say "I don't know", or answer with a set of labels, and see where that breaks;
# - find out by an experiment whether a model looks at the right thing.
#
# **You need** notebooks 02 and 05: the probe, cached features, validation and test.
#
# **Time** about one minute on a 2-core CPU.

# %%
import math
from collections import Counter

import matplotlib.pyplot as plt
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images
from torch import nn
from torch.utils.data import DataLoader

from going_modular import data_setup, engine, evaluation, model_builder, utils

utils.seed_everything(42)
device = utils.pick_device()
print(f"device: {device}")

# %% [markdown] slideshow={"slide_type": "slide"}
# ## A model and its confidence
#
# We take a probe, because its features are computed once. There are four sets of images: train, val,
# test, and **shifted**: the same 12 kinds of chart, in styles that training never shows (dark,
# sketched, squeezed, photocopied, and so on). All that we choose in this notebook, we choose on val.

# %% tags=["nbval-check-output"]
splits = data_setup.load("charts")
transform = data_setup.create_transform("efficientnet_lite0", size=128)
shifted = data_setup.load_split(splits.folder / "shifted", splits.class_names)
images = {"train": splits.train, "val": splits.val, "test": splits.test, "shifted": shifted}
trunk = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 12))
features = {
    name: engine.extract_features(trunk, data_setup.create_dataloader(part, transform), device)
    for name, part in images.items()
}
print({name: tuple(part.tensors[0].shape) for name, part in features.items()})


# %% slideshow={"slide_type": "subslide"}
def train_head(epochs):
    """Train a head on the features; return it, and each set's logits and labels."""
    utils.seed_everything(0)
    head = nn.Linear(1280, 12)
    loader = DataLoader(features["train"], batch_size=32, shuffle=True)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    scheduler = engine.warmup_cosine(optimizer, epochs * len(loader), warmup_steps=len(loader))
    options = {"epochs": epochs, "device": "cpu", "scheduler": scheduler, "verbose": False}
    engine.train(head, loader, None, optimizer, dtype=torch.float32, **options)
    with torch.inference_mode():
        return head, {name: (head(x), y) for name, (x, y) in tensors.items()}


tensors = {name: part.tensors for name, part in features.items()}
_, first = train_head(20)
answers = {20: first}
logits, labels = answers[20]["test"]
confidence, predicted = logits.softmax(dim=1).max(dim=1)
right = predicted == labels
print("test accuracy", evaluation.format_accuracy(int(right.sum()), len(right)))
print(
    f"mean confidence where right {confidence[right].mean():.2f}, wrong {confidence[~right].mean():.2f}"
)

# %% [markdown] slideshow={"slide_type": "slide"}
# The **confidence** of an answer is its probability, the largest of the twelve. Where the model is
# wrong it is lower on average: it does know something about its own mistakes.
#
# ## Does 90% mean 90%?
#
# A model is **calibrated** if it is right in 90% of the cases where it says 90%. The **expected
# calibration error** (ECE, [Guo et al. 2017](https://arxiv.org/abs/1706.04599)) sorts the answers by
# confidence into bins, and averages the gap between confidence and accuracy.
#
# How small can it get? Not zero: even a perfect model has gaps, because a bin holds few images. So we
# build one. We draw labels *from the model's own probabilities*, so that every probability is exactly
# right, and measure its ECE. This is the **noise floor**.
#
# **Predict:** how large is it for 720 images?


# %% slideshow={"slide_type": "subslide"}
def noise_floor(probabilities, draws=300):
    """Return the ECE of a model whose probabilities are exactly right: 2.5%, median, 97.5%."""
    torch.manual_seed(0)
    errors = []
    for _ in range(draws):
        drawn = torch.multinomial(probabilities, 1)[:, 0]
        errors.append(evaluation.expected_calibration_error(probabilities, drawn))
    return torch.tensor(errors).quantile(torch.tensor([0.025, 0.5, 0.975])).tolist()


probabilities = logits.softmax(dim=1)
error = evaluation.expected_calibration_error(probabilities, labels)
floor = noise_floor(probabilities)
print(f"ECE {error:.3f}; a perfect model, too, would show about {floor[1]:.3f}, "
      f"and up to {floor[2]:.3f} by chance")  # fmt: skip
print(f"mean confidence {confidence.mean():.3f}, accuracy {right.float().mean():.3f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# More than half of what one would report as "calibration error" would be there with a perfect model,
# too. Without the floor, an improvement from 0.04 to 0.03 looks like a result. Ours lies just above
# the floor's range, and the second line says in which direction it is off: this head is too *modest*.
#
# ## Longer training, more confidence
#
# **Temperature scaling** divides all logits by one number T, chosen on validation so that the loss is
# smallest. No answer changes, only the confidence: T above 1 makes the model more modest, below 1
# bolder. In plain PyTorch it is a line search:


# %% slideshow={"slide_type": "subslide"}
def loss_at(T, part="val", epochs=20):
    logits, labels = answers[epochs][part]
    return nn.functional.cross_entropy(logits / T, labels).item()


by_hand = min([0.01 * i for i in range(20, 300)], key=loss_at)
print(
    f"T by hand {by_hand:.2f}, with the package {evaluation.fit_temperature(*answers[20]['val']):.2f}"
)

# %% [markdown]
# **Predict:** we train the head for 20, 60 and 200 epochs. What does longer training do to accuracy,
# and what to confidence?

# %% slideshow={"slide_type": "subslide"}
head, answers[60] = train_head(60)
_, answers[200] = train_head(200)
table = {}
print("epochs  val loss  accuracy  confidence     T    ECE         noise floor  ECE after T")
for epochs, sets in answers.items():
    T = evaluation.fit_temperature(*sets["val"])
    logits, labels = sets["test"]
    p, scaled = logits.softmax(dim=1), (logits / T).softmax(dim=1)
    before, after = (evaluation.expected_calibration_error(x, labels) for x in (p, scaled))
    accuracy, certain = (p.argmax(dim=1) == labels).float().mean(), p.max(dim=1).values.mean()
    low, _, high = noise_floor(p)
    table[epochs] = accuracy.item(), certain.item(), T, before, high, after
    print(f"{epochs:6} {loss_at(1, epochs=epochs):9.3f} {accuracy:9.3f} {certain:11.3f} {T:5.2f} "
          f"{before:6.3f} {low:11.3f} to {high:.3f} {after:12.3f}")  # fmt: skip

# %% alt="Three reliability diagrams. After 20 epochs most large points lie above the diagonal, after 60 around it, after 200 below it; grey bars show where a perfect model would lie." slideshow={"slide_type": "subslide"}
evaluation.plot_reliability(
    {
        f"{epochs} epochs": (sets["test"][0].softmax(dim=1), sets["test"][1])
        for epochs, sets in answers.items()
    }
)

# %%
# @title Checks: what these sections say
assert confidence[right].mean() > confidence[~right].mean() + 0.1
assert 0.01 < floor[1] < 0.04 and floor[0] > 0.005 and floor[1] > error / 2
assert abs(by_hand - table[20][2]) < 0.02
assert table[20][1] < table[20][0] and table[200][1] > table[200][0] + 0.02
assert table[20][2] < 0.85 and table[200][2] > 1.05
assert abs(table[200][0] - table[20][0]) < 0.03
assert table[200][3] > table[200][4] - 0.003 and table[60][3] < table[60][4] + 0.01
assert table[20][5] < table[20][3] and abs(table[60][5] - table[60][3]) < 0.025
assert loss_at(1, epochs=60) < min(loss_at(1, epochs=20), loss_at(1, epochs=200)) + 0.01

# %% [markdown] slideshow={"slide_type": "slide"}
# Accuracy hardly changes; confidence keeps rising. After 20 epochs the model is too modest (T below 1),
# after 200 it is **overconfident** (T above 1). Nothing but the number of epochs differs between the
# three. And the temperature? After 20 epochs it nearly halves the error. After 200 it helps little: one
# number moves all confidences the same way. After 60 the error lies near the upper end of the floor's
# range and T near 1: it changes little, and 720 images cannot show whether for the better.
#
# We go on with the head that has the smallest loss on validation, the one of 60 epochs.
#
# ## Saying "I don't know"
#
# A model may **abstain**: answer where it is confident, and leave the rest to a person. We set the
# threshold on validation, so that 90% of its charts get an answer.
#
# **Predict:** of the charts that are answered, how many points more are right?

# %% slideshow={"slide_type": "subslide"}
P = {name: logits.softmax(dim=1) for name, (logits, _) in answers[60].items()}
Y = {name: labels for name, (_, labels) in answers[60].items()}
right = {name: P[name].argmax(dim=1) == Y[name] for name in P}
sure = {name: P[name].max(dim=1).values for name in P}  # the confidence of each answer
threshold = sure["val"].quantile(0.1).item()
print(f"answer at a confidence of {threshold:.2f} or more")
for name in ("test", "shifted"):
    kept = sure[name] >= threshold
    print(f"{name:8} all {right[name].float().mean():.3f}; answered {kept.float().mean():.2f} of them, "
          f"and of those {right[name][kept].float().mean():.3f} are right")  # fmt: skip

# %% alt="Accuracy of the answers against the share of images answered, for test and for shifted images: both fall as the share grows; the shifted curve lies far lower." slideshow={"slide_type": "subslide"}
# @title Figure: answer fewer, and be right more often
figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
for name, color in (("test", utils.BLUE), ("shifted", utils.ORANGE)):
    share, accuracy = evaluation.coverage_curve(sure[name], right[name])
    axis.plot(share[30:], accuracy[30:], color=color)
    axis.annotate(name, (1, accuracy[-1]), (6, -3), textcoords="offset points", color=color)
axis.set(xlabel="Share of the images answered", ylabel="Accuracy of the answers", xlim=(0, 1.12))
axis.grid(alpha=0.3)

# %% [markdown] slideshow={"slide_type": "slide"}
# Answer fewer images, and you are right more often: two or three points here. On shifted images the model
# abstains more often, but not nearly often enough: of what it still answers, far fewer are right than
# on test. Its confidence notices the change, and far too little of it.
#
# ## Several answers, with a guarantee
#
# Instead of one label, a model can return a **set** of labels that contains the right one in 95% of
# the cases. **Conformal prediction** ([Angelopoulos and Bates 2021](https://arxiv.org/abs/2107.07511))
# makes such sets from any model, in two steps:
#
# 1. On validation, look at the probability of the *true* label. Find the value that 95% of the images
#    reach.
# 2. For a new image, return all labels whose probability reaches that value.
#
# If new images come from the same source as the validation images, the set holds the true label with
# a probability of at least 95%. This holds for any model: a bad one gets large sets. (Step 1 asks for a
# little more than 95%, because the validation images are a sample; below 19 of them, only the set of
# all labels can keep the promise.)
#
# **Predict:** our model is right in nine of ten cases. How many labels does a set hold on average?


# %% slideshow={"slide_type": "subslide"}
def calibrate(probabilities, labels, target=0.95):
    """Return the probability that a label must reach to be in the set."""
    of_true_label = probabilities.gather(1, labels[:, None])[:, 0].sort(descending=True).values
    rank = math.ceil((len(labels) + 1) * target)
    return of_true_label[rank - 1].item() if rank <= len(labels) else 0.0


def coverage(name, reach, rows=slice(None)):
    """Print how often the set holds the true label, and how large it is."""
    sets = P[name][rows] >= reach  # (N, 12), True where a label is in the set
    held = sets.gather(1, Y[name][rows][:, None])[:, 0].float()
    size = sets.sum(dim=1)
    how_many = dict(sorted(Counter(size.tolist()).items()))
    print(f"{name:8} holds the true label {held.mean():.3f}, "
          f"labels per set {size.float().mean():.2f}, sets by size {how_many}")  # fmt: skip
    return held


reach = calibrate(P["val"], Y["val"])
print(f"a label is in the set at a probability of {reach:.2f} or more")
held = {name: coverage(name, reach) for name in ("test", "shifted")}

# %% [markdown] slideshow={"slide_type": "subslide"}
# On test, the promise is kept, up to chance: 360 images to calibrate on and 720 to measure on leave
# nearly three points either way. Most sets have one label; a hard chart gets more. (A set could be
# empty, too, where no label reaches the value: one more way to say "I don't know".) On shifted
# images the promise is broken: they are not from the same source. The sets grow a little, and far too
# little. Here is each style by itself:

# %% slideshow={"slide_type": "subslide"}
styles = [path.stem.split("_")[1] for path, _ in shifted.samples]
by_style = {}
for style in sorted(set(styles)):
    rows = torch.tensor([s == style for s in styles])
    by_style[style] = (
        right["shifted"][rows].float().mean().item(),
        held["shifted"][rows].mean().item(),
    )
    print(f"{style:10} right {by_style[style][0]:.2f}, set holds it {by_style[style][1]:.2f}")
print(f"{rows.sum()} images of each style")

# %% [markdown] slideshow={"slide_type": "subslide"}
# One average hides where a model fails. With 36 images per style, only large gaps mean something, but
# between the best style and the worst the gap is large.
#
# What mends it? Labels from the new source. We label half of the shifted images, calibrate on them, and
# measure on the other half.
#
# **Predict:** the promise will be kept again. What does it cost?

# %% slideshow={"slide_type": "subslide"}
torch.manual_seed(0)
order = torch.randperm(len(shifted))
half, other = order[:180], order[180:]
coverage("shifted", reach, other)
mended_reach = calibrate(P["shifted"][half], Y["shifted"][half])
mended = coverage("shifted", mended_reach, other)
mended_size = (P["shifted"][other] >= mended_reach).sum(dim=1).float().mean()

# %%
# @title Checks: what these sections say
kept = sure["test"] >= threshold
gain = right["test"][kept].float().mean() - right["test"].float().mean()
assert 0.01 < gain < 0.06
kept = sure["shifted"] >= threshold
assert right["shifted"][kept].float().mean() < right["test"].float().mean() - 0.03
assert 0.92 < held["test"].mean() < 0.98 and held["shifted"].mean() < 0.88
assert max(r for r, _ in by_style.values()) > min(r for r, _ in by_style.values()) + 0.25
assert (P["shifted"] >= reach).sum(dim=1).float().mean() < 1.6
assert mended.mean() > held["shifted"].mean() + 0.05 and mended_size > 1.5

# %% [markdown] slideshow={"slide_type": "slide"}
# Kept, and paid for with larger sets: the model says how little it knows about such images. 180 labels
# were enough to find that out.
#
# ## Images that belong to no class
#
# What if something comes that is not a chart at all? Here are three photos, noise, and an empty page.
#
# **Predict:** which of them does the model refuse, at our threshold?

# %% alt="Five images that are not charts, each with the model's answer, its confidence, and whether it is answered or refused: a portrait, a palace, a flower, noise, an empty page." slideshow={"slide_type": "subslide"}
noise = torch.randint(0, 256, (150, 150, 3), dtype=torch.uint8)
foreign = [Image.open(get_sample_data("grace_hopper.jpg")).convert("RGB")]
foreign += [Image.fromarray(photo) for photo in load_sample_images().images]
page = ImageOps.expand(Image.new("RGB", (146, 146), "white"), 2, "gray")  # with a frame, to see it
foreign += [Image.fromarray(noise.numpy()), page]
batch = [(transform(image), 0) for image in foreign]
strange = engine.extract_features(trunk, DataLoader(batch, batch_size=5), device).tensors[0]
with torch.inference_mode():
    top = head(strange).softmax(dim=1).max(dim=1)
titles_of_foreign = [
    f"{splits.class_names[label]} {p:.0%}\n" + ("answered" if p >= threshold else "refused")
    for p, label in zip(top.values.tolist(), top.indices.tolist(), strict=True)
]
utils.plot_images(foreign, titles_of_foreign, columns=5)

# %% [markdown] slideshow={"slide_type": "slide"}
# Most of them pass, with confidence. Softmax compares the 12 classes with one another. It never
# asks: "or none of these?" The threshold was set for charts, and says nothing about other images. If
# strange images can reach your model, collect some, measure as here, or train a class *other* on them.
# (Three photos are three examples. How *often* it happens, they cannot tell.)
#
# ## Right for the right reason?
#
# Suppose a publisher prints its logo in the corner of every histogram, and our 20 training images are
# its own. Then the logo alone gives the answer. We set this trap ourselves, and train probes to tell
# bar charts from histograms on three sets of images: without logos, with the logo on histograms only,
# and, as a control, with the logo on *all* images, where it says nothing about the class.


# %%
# @title Helpers: two classes, a logo, a probe
def only(images, names):
    """Prepare the images of some classes, labelled by their position in `names`."""
    wanted = [images.class_names.index(name) for name in names]
    return [(transform(image), wanted.index(label)) for image, label in images if label in wanted]


def stamp(image):
    """Print a checkered logo, blue and white, of 40 x 40 pixels into the bottom right corner."""
    squares = torch.arange(40) // 5
    checks = ((squares[:, None] + squares) % 2) * 2.0 - 1
    image = image.clone()
    image[:, -40:, -40:] = torch.stack([checks, checks, torch.ones(40, 40)])
    return image


def train_probe(images, seed):
    utils.seed_everything(seed)
    model = model_builder.freeze(model_builder.create_model("efficientnet_lite0", 2))
    loader = DataLoader(images, batch_size=8, shuffle=True)
    optimizer = torch.optim.AdamW(model_builder.parameter_groups(model, lr=3e-3))
    options = {"epochs": 40, "device": device, "cache_frozen": True, "verbose": False}
    engine.train(model, loader, None, optimizer, **options)
    return model


def share_of_bars(model, images):
    """Return the share of images that the model calls bars."""
    loader = DataLoader([(image, 0) for image in images], batch_size=30)
    return engine.evaluate(model, loader, device).accuracy


def mean(rows):
    """Return the mean of each column, over the three seeds."""
    return torch.tensor(rows).mean(dim=0).tolist()


# %% [markdown]
# **Predict:** all of them then see bar charts, plain and with the logo. Which change their mind? And a
# histogram *without* a logo, what does each make of it?

# %% slideshow={"slide_type": "subslide"}
pair = ["bar", "histogram"]
few, val_pair = only(splits.train.few(10), pair), only(splits.val, pair)
bars = [image for image, label in val_pair if label == 0]
histograms = [image for image, label in val_pair if label == 1]
stamped = [stamp(image) for image in bars]
training_sets = {
    "no logos": few,
    "logo on histograms": [(stamp(image) if label == 1 else image, label) for image, label in few],
    "logo on all": [(stamp(image), label) for image, label in few],
}
probes = {name: [train_probe(part, seed) for seed in range(3)] for name, part in training_sets.items()}
asked = {"bars": bars, "bars, logo": stamped, "histograms": histograms}
called_bars = {
    name: mean([[share_of_bars(model, part) for part in asked.values()] for model in three])
    for name, three in probes.items()
}
print("called bars:       " + "".join(f"{name:>14}" for name in asked))
for name, shares in called_bars.items():
    print(f"{name:19}" + "".join(f"{share:14.2f}" for share in shares))
publisher = [(stamp(x) if label == 1 else x, label) for x, label in val_pair]
same_source = mean(
    [
        engine.evaluate(model, DataLoader(publisher, batch_size=30), device).accuracy
        for model in probes["logo on histograms"]
    ]
)
print(f"logo on histograms, accuracy on validation images of the same publisher: {same_source:.2f}")

# %% [markdown] slideshow={"slide_type": "subslide"}
# With the logo on histograms only, the probes call hardly any stamped bar chart a bar chart any more,
# and most histograms without a logo are bar charts for them. The logo has become the class. Validation
# images from the same publisher show nothing of it: there, accuracy is almost perfect.
#
# Could we have seen it? **Grad-CAM** ([Selvaraju et al. 2017](https://arxiv.org/abs/1610.02391)) shows
# which cells of the last feature maps raise a class's logit. Here: evidence for *histogram* in bar
# charts with the logo. The corner, a quarter of the image, holds the logo; evidence that is spread
# evenly would have a share of 0.25 there.
#
# **Predict:** in which of the three rows does the corner light up?

# %% alt="Bar charts with a logo in the corner, in three rows, with the evidence for histogram in orange: without logos in training it is spread over the bars, with the logo on histograms it sits on the logo, with the logo on all images mostly, too." slideshow={"slide_type": "subslide"}
heat = {
    name: [
        [evaluation.grad_cam(model, model.features[-1], image, 1) for image in stamped[:20]]
        for model in three
    ]
    for name, three in probes.items()
}
corner = {}
for name, of_seeds in heat.items():
    shares = [(m[64:, 64:].sum() / m.sum().clamp(min=1e-9)).item() for maps in of_seeds for m in maps]
    corner[name] = sum(shares) / len(shares)
    print(f"{name:18}  evidence in the corner: {corner[name]:.2f}")
maps = [m for of_seeds in heat.values() for m in of_seeds[0][:5]]
titles = [name for name in heat for _ in range(5)]
evaluation.plot_grad_cam(stamped[:5] * 3, maps, titles, columns=5)

# %%
# @title Checks: what these sections say
assert 3 <= sum("answered" in title for title in titles_of_foreign) <= 5
plain, logo, _ = called_bars["logo on histograms"]
assert plain > 0.9 and logo < 0.2 and called_bars["logo on histograms"][2] > 0.6
assert same_source > 0.93
assert called_bars["no logos"][1] > 0.6 and called_bars["logo on all"][1] > logo + 0.3
assert corner["no logos"] < 0.2
assert corner["logo on histograms"] > 0.6 and corner["logo on all"] > 0.4

# %% [markdown] slideshow={"slide_type": "slide"}
# In the second row *and in the third*: the maps hardly tell the two apart. The experiment does. With the
# logo on all training images the probes lean on it far less, and still call most stamped bar charts
# bars. A map is coarse (4 × 4 cells here), and each is scaled to its own largest value: it shows where
# evidence lies, not how much of it, nor whether the answer depends on it. So a map can raise a
# suspicion. The proof is the experiment: change the suspected cause, leave all else, and count how
# many answers change.
#
# ## Recap
#
# - You compared confidence with accuracy, beside the noise floor of a perfect model, and saw where a
#   temperature corrects it and where there is nothing to correct.
# - You let the model abstain and answer with sets, and saw the guarantee end where images came from
#   another source.
# - You found by an experiment that a model looked at a logo; a map alone would have misled you.
#
# ## Check yourself
#
# 1. A paper lowers the ECE on 700 test images from 0.039 to 0.036. What do you ask first?
#    - **a** · What ECE a perfect model would have on these images.
#    - **b** · How many bins they used.
#    - **c** · Whether accuracy fell.
#
# <details><summary>Answer</summary>
#
# **a.** Both values may lie within the noise floor, and then nothing was shown. *b:* It matters, but
# the floor answers it, too: compute it with the same bins. *c:* Worth knowing, but it would not tell
# whether the drop in ECE is more than chance.
# </details>
#
# 2. Why is the temperature fitted on validation and not on test?
#    - **a** · The test split is too small.
#    - **b** · It is a choice made by looking at labels.
#    - **c** · The test split is shifted.
#
# <details><summary>Answer</summary>
#
# **b.** Fitted on the test split, it would make the error reported for that split too small. *a:* The
# test split is the larger of the two here. *c:* Only the split of that name is.
# </details>
#
# 3. Conformal sets promise 95%, and on next year's images they hold the true label in 81%. Why?
#    - **a** · The model is too bad for a guarantee.
#    - **b** · The promise is for images from the same source as those it was calibrated on.
#    - **c** · Too few validation images.
#
# <details><summary>Answer</summary>
#
# **b.** Label some of the new images and calibrate again. *a:* A bad model gets larger sets, and keeps
# the promise. *c:* Few images make the coverage vary more around 95%; they do not lower it by so much.
# </details>
#
# 4. Grad-CAM lights up the right object. Is the model right for the right reason?
#    - **a** · Not proved: change the suspected cause, and count the answers that change.
#    - **b** · Yes, it looks at the object.
#    - **c** · Yes, if the probability is high as well.
#
# <details><summary>Answer</summary>
#
# **a.** The map shows coarsely where evidence lies. *b:* A logo *on* the object lights up at the same
# place. *c:* A shortcut makes models confident.
# </details>
#
# ## Exercises
#
# [Five exercises](exercises/10_can_you_trust_it.ipynb) mark themselves. Here, predict, then run:
#
# 1. Train the head for 1,000 epochs. Where do T and the ECE go, and what does accuracy do?
# 2. Set the target of the sets to 0.99. What happens to their size, on test and on shifted images?
# 3. Make the logo grey, then 20 pixels wide. When does the trap stop working?
#
# The model is in use, and wishes come: go on with
# [11 · After the first model](11_after_the_first_model.ipynb).
