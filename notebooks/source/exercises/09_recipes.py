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

# %% [markdown]
# # 09 · Practise the checks that make a recipe safe

# %%
import copy
import itertools

import torch
from torch import nn

from going_modular import model_builder, utils
from going_modular.classroom import marks

utils.seed_everything(42)
print("torch", torch.__version__.split("+")[0])

# %% [markdown]
# ## Exercise 1 · What does the optimizer not know?
#
# Write `not_held`: how many trainable parameters of `model` are missing from `optimizer`? Count
# single numbers, as `numel` does. Zero means that all is well. An optimizer may also hold frozen
# parameters, or parameters of another model.
#
# <details><summary>Hint</summary>
#
# `optimizer.param_groups` is a list of dictionaries; each keeps its parameters under `"params"`. Two
# parameters are the same if they are the same object: compare their `id(...)`. Subtracting one
# total from another can be right by chance.
# </details>

# %%
def not_held(model, optimizer):
    """Count the trainable parameters of `model` that `optimizer` does not hold."""
    # solution
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return sum(p.numel() for p in model.parameters() if p.requires_grad and id(p) not in held)
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(1, not_held=not_held):
    net = model_builder.freeze(model_builder.create_model("resnet18", 10, weights=None))
    old = torch.optim.Adam(model_builder.parameter_groups(net, lr=1e-3))
    said = not_held(net, old)
    assert said == 0, f"head trainable, head held: nothing is missing, and you say {said:,}"
    model_builder.unfreeze(net, last=1)
    missing = sum(p.numel() for p in net.layer4.parameters())
    said = not_held(net, old)
    assert said != len(list(net.layer4.parameters())), (
        f"{said} tensors are missing: count the numbers in them"
    )
    assert said == missing, f"all of layer4 is missing, {missing:,}, and you say {said:,}"
    two_groups = torch.optim.Adam(model_builder.parameter_groups(net, lr=1e-3, trunk_lr=1e-4))
    said = not_held(net, two_groups)
    assert said == 0, f"an optimizer with two groups holds all of it, and you say {said:,}"
    said = not_held(net, torch.optim.Adam(net.parameters()))
    assert said == 0, f"it holds all, the frozen ones too: nothing is missing; you say {said:,}"
    wanted, said = missing + 5130, not_held(copy.deepcopy(net), two_groups)
    assert said == wanted, (
        "the model was copied after its optimizer was made: the optimizer moves nothing of the "
        f"copy, {wanted:,} are missing, and you say {said:,}"
    )

# %% [markdown]
# ## Exercise 2 · Keep the best, not the last
#
# Write `keep_best`. In each of `epochs` epochs it calls `train_epoch(model)`, and then
# `validate(model)` for the accuracy. At the end, `model` has the weights of the epoch with the
# highest accuracy, or of the first of them if there are several. It returns that epoch's number,
# counted from 1.
#
# <details><summary>Hint</summary>
#
# `model.state_dict()` is all that a model knows, but its tensors are the model's own, and training
# goes on changing them. `copy.deepcopy` makes a copy. At the end, `model.load_state_dict(...)`.
# </details>

# %%
def keep_best(model, train_epoch, validate, epochs):
    """Train; leave the best epoch's weights in `model`, and return its number."""
    # solution
    best_accuracy = -1
    for epoch in range(1, epochs + 1):
        train_epoch(model)
        accuracy = validate(model)
        if accuracy > best_accuracy:
            best_accuracy, best_epoch = accuracy, epoch
            best_state = copy.deepcopy(model.state_dict())
    model.load_state_dict(best_state)
    return best_epoch
    # student
    # raise NotImplementedError
    # end of solution

# %%
def count_up(model):
    """Stand in for an epoch of training: add 1 to everything that training moves."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor += 1


def score_by(accuracies):
    """Stand in for validation; one epoch too many would be the best."""
    return lambda model: (*accuracies, 1)[int(model[0].bias[0]) - 1]


with marks.exercise(2, keep_best=keep_best):
    runs = [(0.5, 0.9, 0.7), (0.4, 0.6), (0.6, 0.8, 0.8, 0.7), (0, 0), (0.5, 0.4, 0.9, 0.6)]
    for accuracies in runs:
        net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        for tensor in net.state_dict().values():
            tensor.zero_()
        epochs, best = len(accuracies), accuracies.index(max(accuracies)) + 1
        said = keep_best(net, count_up, score_by(accuracies), epochs)
        weights, statistics = int(net[0].bias[0]), int(net[1].running_mean[0])
        about = f"accuracies {accuracies}: the first of the best is epoch {best}"
        assert weights <= epochs, f"{epochs} epochs are wanted, and you train {weights}"
        assert weights == best or weights != epochs, (
            f"{about}, and the model ends with epoch {weights}'s weights, the last ones: is what "
            "you keep a copy, and do you load it?"
        )
        assert weights == best, f"{about}, and the model ends with epoch {weights}'s weights"
        assert statistics == best, (
            f"{about}: the parameters are its own, but BatchNorm's running mean is epoch "
            f"{statistics}'s: a model is more than its parameters"
        )
        assert said == best, f"{about}, and you return {said}"

# %% [markdown]
# ## Exercise 3 · Which counts can be behind a reported number?
#
# A course prints the *mean of its batches' accuracies*, to four decimals. Write `possible_counts`:
# it returns a set, of every total of right answers, over all batches together, that leads to the
# printed number. The check then asks what is behind the course's 0.8561: 75 test images, in batches
# of 32, 32 and 11.
#
# <details><summary>Hint</summary>
#
# A batch of 32 has 0 to 32 right answers. Try all combinations:
# `itertools.product(*(range(size + 1) for size in sizes))`. Compare what would be printed,
# `round(mean, 4)`, with `reported`.
# </details>

# %%
def possible_counts(reported, sizes):
    """Return the set of total counts whose mean over batches of these sizes is printed so."""
    # solution
    found = set()
    for counts in itertools.product(*(range(size + 1) for size in sizes)):
        accuracies = [count / size for count, size in zip(counts, sizes)]
        if round(sum(accuracies) / len(sizes), 4) == reported:
            found.add(sum(counts))
    return found
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(3, possible_counts=possible_counts):
    said = possible_counts(0.5, [2, 2, 1])
    assert said is not None and not isinstance(said, (int, float)), f"a set is wanted, not {said}"
    about = f"batches of 2, 2 and 1, and 0.5 printed: you say {said}"
    assert set(said) != {2.5}, f"{about}: no image is half right"
    assert not any(isinstance(count, tuple) for count in said), f"{about}: add up the batches"
    assert set(said) == {2, 3}, (
        f"{about}. 1 and 0 and 1 right give 0.5, and so do 2 and 1 and 0: two counts are possible"
    )
    for reported, sizes, wanted, why in [
        (0.3333, [2, 2, 1], {1, 2}, "a printed number is rounded"),
        (0.75, [4, 4], {6}, "batches of one size give the accuracy itself"),
        (0.8533, [32, 32, 11], set(), "64 of 75 are 0.8533, but no mean of these batches is"),
        (0.8561, [32, 32, 11], {65}, "only what would be printed exactly so is possible"),
    ]:
        said = set(possible_counts(reported, sizes))
        assert said == wanted, (
            f"{reported} from batches of {sizes}: you say {said or 'none'}, and "
            f"{wanted or 'none'} is possible: {why}"
        )
    (count,) = possible_counts(0.8561, [32, 32, 11])
    print(f"0.8561 was {count} of 75, an accuracy of {count / 75:.4f}")

# %% [markdown]
# ## Exercise 4 · Find the head by what it does
#
# `fc`, `classifier[6]`, `heads.head`: each network has another name for its last layer. Write
# `find_head`, which returns the name of the layer that gives the logits, for any network. That is
# the last layer to *run* among those that have parameters and no layers inside. You can call
# `network(images)`; the network is in eval mode. Leave it as you found it.
#
# <details><summary>Hint</summary>
#
# `network.named_modules()` gives names and modules in the order in which they were defined, and that
# need not be the order in which they run. A forward hook tells you what runs:
# `handle = module.register_forward_hook(lambda *call: ...)`; later, `handle.remove()`. What a module
# has inside is in `module.children()`. Careful: a lambda in a loop sees the loop's last values,
# unless they are its defaults: `lambda *call, name=name: ...`.
# </details>

# %%
class HeadFirst(nn.Module):
    """A network whose author thought of the head first."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 5)
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 8), nn.ReLU())

    def forward(self, images):
        return self.head(self.trunk(images))


networks = {"HeadFirst": HeadFirst()}
with torch.device("meta"):  # shapes without numbers
    for name in ("resnet18", "vit_b_16", "inception_v3", "squeezenet1_1"):
        networks[name] = model_builder.create_model(name, 5, weights=None)
pixels = {"vit_b_16": 224, "inception_v3": 299}
images = {}
for name, network in networks.items():
    size = pixels.get(name, 64)
    images[name] = torch.zeros(1, 3, size, size, device="meta")
    logits, children = network.to("meta").eval()(images[name]), dict(network.named_children())
    print(f"{name:<14} logits {tuple(logits.shape)}, defined last: {list(children)[-1]}")

# %%
def find_head(network, images):
    """Return the name of the layer that gives the logits, as in `named_modules()`."""
    # solution
    ran, handles = [], []
    for name, module in network.named_modules():
        if list(module.parameters()) and not list(module.children()):
            hook = module.register_forward_hook(lambda *call, name=name: ran.append(name))
            handles.append(hook)
    network(images)
    for handle in handles:
        handle.remove()
    return ran[-1]
    # student
    # raise NotImplementedError
    # end of solution

# %%
with marks.exercise(4, find_head=find_head):
    for kind, wanted, why in [
        ("resnet18", "fc", "groups of layers, and the network itself, have names, too"),
        ("vit_b_16", "heads.head", "its last child is no layer, but a group"),
        ("HeadFirst", "head", "what is defined last need not run last"),
        ("inception_v3", "fc", "the auxiliary head runs in training only"),
        ("squeezenet1_1", "classifier.1", "a head can be a convolution, with pooling after it"),
    ]:
        network, about = networks[kind], f"in {kind}, you say"
        modules = dict(network.named_modules())
        said = find_head(network, images[kind])
        assert isinstance(said, str), f"{about} {type(said).__name__}: a name is wanted, a string"
        assert said in modules, f"{about} {said!r}, and no layer has that name"
        layer = type(modules[said]).__name__
        group = list(modules[said].children())
        assert not group, f"{about} {said!r}, which has layers inside: {why}"
        assert said == wanted, f"{about} {said!r} ({layer}), but {wanted!r} gives the logits: {why}"
        hooks = sum(len(module._forward_hooks) for module in modules.values())
        assert hooks == 0, f"in {kind}, {hooks} of your hooks are still there: remove them"
        assert not network.training, f"{kind} was in eval mode, and you leave it in training mode"
        print(f"{kind:<14} {said}")
