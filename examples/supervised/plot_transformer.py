"""
What a transformer learnt by heart
==================================

A character transformer reads sentences about colours. One of them, about a dodo, is told once.
Which training sentence does its answer come from? Every parameter takes part, attention too: rows
of the Jacobian come through ``torch.func``, exactly.
"""

# %%
import matplotlib.pyplot as plt
import torch
from torch import nn

import whence as wh

NOUNS = ("sky", "sea", "sun", "rose", "leaf", "snow", "coal", "lime")
COLORS = ("blue", "blue", "gold", "red", "green", "white", "black", "green")
FORMS = ("the {} is {}.", "my {} is {}.", "a {} is {}.")
sentences = [
    form.format(noun, color)
    for noun, color in zip(NOUNS, COLORS, strict=True)
    for form in FORMS
]
sentences.append("the dodo is pink.")

letters = sorted(set("".join(sentences)))
LENGTH = max(map(len, sentences))
PAD = len(letters)


def encoded(text):
    """Return letters as numbers, filled up to the common length."""
    numbers = [letters.index(letter) for letter in text]
    return numbers + [PAD] * (LENGTH - len(numbers))


class Block(nn.Module):
    """Attention to what came before, then two layers for each letter."""

    def __init__(self, width, heads=2):
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.rise, self.fall = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        """Return what the block makes of (n, length, width)."""
        n, length, width = x.shape
        mixed = self.query_key_value(self.before(x))
        split = mixed.view(n, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / (width // self.heads) ** 0.5
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(later, -torch.inf).softmax(dim=-1)
        x = x + self.out((weights @ value).transpose(1, 2).reshape(n, length, width))
        return x + self.fall(nn.functional.gelu(self.rise(self.after(x))))


class Transformer(nn.Module):
    """Logits of the next letter, (n, classes, length - 1)."""

    def __init__(self, width=16):
        super().__init__()
        self.letter = nn.Embedding(len(letters) + 1, width)
        self.place = nn.Parameter(0.1 * torch.randn(LENGTH - 1, width))
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.head = nn.Linear(width, len(letters) + 1)

    def forward(self, x):
        """Return the logits of each next letter."""
        hidden = self.blocks(self.letter(x) + self.place)
        return self.head(hidden).transpose(1, 2)


tokens = torch.tensor([encoded(text) for text in sentences])
x, y = tokens[:, :-1], tokens[:, 1:]
torch.manual_seed(0)
model = Transformer()
loss = nn.CrossEntropyLoss(ignore_index=PAD)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
for _ in range(400):
    optimizer.zero_grad()
    value = loss(model(x), y)
    value.backward()
    optimizer.step()
size = sum(parameter.numel() for parameter in model.parameters())
print(f"{size} parameters, loss {float(value.detach()):.3f}")

# %%
# Of three sentences the loss of the last word alone, the colour: what comes before it is masked.
asked = ["the rose is red.", "the sky is blue.", "the dodo is pink."]
targets = []
for text in asked:
    answer = torch.tensor(encoded(text))
    answer[: text.rindex(" ") + 1] = PAD
    targets.append(answer[1:])
chosen = [sentences.index(text) for text in asked]
# Conjugate gradients need products with J alone, no row for each of the 16 letters and 19 classes.
influence = wh.Influence(
    model, (x, y), loss, damping=1e-3, solver=wh.ConjugateGradient()
)
table = influence.attribute(wh.Loss(x[chosen], torch.stack(targets)))

figure, axes = plt.subplots(1, 3, figsize=(11, 5), layout="constrained", sharey=True)
for ax, text, row in zip(axes, asked, table.values, strict=True):
    colors = ["#D55E00" if value > 0 else "#56B4E9" for value in row]
    ax.barh(range(len(sentences)), row, color=colors)
    ax.set(title=text, xlabel="without it the loss rises by")
    ax.axvline(0, color="0.5", linewidth=0.7)
    ax.ticklabel_format(axis="x", scilimits=(0, 0))
    ax.locator_params(axis="x", nbins=4)
axes[0].set_yticks(range(len(sentences)), sentences, fontsize=8)
axes[0].invert_yaxis()
figure

# %%
# Colours that were told three times are held by many sentences, a sky's blue by a sea's; the dodo's
# pink by one.
for text, index, row in zip(asked, chosen, table.values, strict=True):
    helps = row.clip(min=0)
    print(
        f"{text:18s} {100 * helps[index] / helps.sum():3.0f} % of its help is its own"
    )
