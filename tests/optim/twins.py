"""Each optimizer with the class of torch.optim that it must equal, and a recorded stream."""

import torch

from playground.optim import config

TWINS = {
    "sgd": (config.SGD(lr=0.02), torch.optim.SGD, {}),
    "sgd-decay": (config.SGD(weight_decay=0.1), torch.optim.SGD, {"weight_decay": 0.1}),
    "momentum": (config.Momentum(), torch.optim.SGD, {"momentum": 0.9}),
    "momentum-decay": (
        config.Momentum(momentum=0.5, weight_decay=0.1),
        torch.optim.SGD,
        {"momentum": 0.5, "weight_decay": 0.1},
    ),
    "nesterov": (config.Nesterov(), torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adagrad": (config.Adagrad(), torch.optim.Adagrad, {}),
    "adagrad-initial": (
        config.Adagrad(initial_accumulator=0.3, eps=1e-3, weight_decay=0.1),
        torch.optim.Adagrad,
        {"initial_accumulator_value": 0.3, "eps": 1e-3, "weight_decay": 0.1},
    ),
    "rmsprop": (config.RMSprop(), torch.optim.RMSprop, {}),
    "rmsprop-centered-momentum": (
        config.RMSprop(alpha=0.9, centered=True, momentum=0.5, weight_decay=0.1),
        torch.optim.RMSprop,
        {"alpha": 0.9, "centered": True, "momentum": 0.5, "weight_decay": 0.1},
    ),
    "adam": (config.Adam(), torch.optim.Adam, {}),
    "adam-decay": (
        config.Adam(lr=0.01, beta1=0.5, beta2=0.9, eps=1e-3, weight_decay=0.1),
        torch.optim.Adam,
        {"betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1},
    ),
    "amsgrad": (
        config.AMSGrad(beta2=0.9),
        torch.optim.Adam,
        {"amsgrad": True, "betas": (0.9, 0.9)},
    ),
    "adamw": (config.AdamW(), torch.optim.AdamW, {}),
    "adamw-decay": (config.AdamW(weight_decay=0.5), torch.optim.AdamW, {"weight_decay": 0.5}),
}

ADAPTED = {
    "ASGD": {"lambd": 0.01, "t0": 20},
    "Adadelta": {"weight_decay": 0.1},
    "Adagrad": {"initial_accumulator_value": 0.5, "lr_decay": 0.01},
    "Adam": {"weight_decay": 0.1, "amsgrad": True},
    "AdamW": {},
    "Adamax": {},
    "NAdam": {"momentum_decay": 0.01},
    "RAdam": {},
    "RMSprop": {"centered": True, "momentum": 0.5},
    "Rprop": {},
    "SGD": {"momentum": 0.9, "dampening": 0.3},
}


def adapted(name, **keys):
    """The adapter's config for one class, with arguments that exercise its state."""
    return config.Torch(lr=0.01, class_name=name, kwargs=ADAPTED[name], **keys)


EVERY = {name: twin[0] for name, twin in TWINS.items()} | {
    f"torch-{name}": adapted(name) for name in ADAPTED
}


def stream(updates, members, size, dtype=torch.float64, seed=0):
    """Start [M, N] and gradients [T, M, N] whose scale varies over five decades."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(updates + 1, members, size, generator=generator, dtype=torch.float64)
    scale = 10 ** (5 * torch.rand(updates, 1, 1, generator=generator, dtype=torch.float64) - 3)
    return draws[0].to(dtype), (draws[1:] * scale).to(dtype)


def follow(optimizer, start, gradients, geometry=None, **keys):
    """Parameters [T, M, N] after each update; ``geometry`` of a point and its gradient."""
    parameters, points = start.clone(), []
    for gradient in gradients:
        if geometry is not None:
            keys["geometry"] = geometry(parameters, gradient)
        parameters += optimizer.step(gradient, parameters, **keys).update
        points.append(parameters.clone())
    return torch.stack(points)


def follow_torch(cls, start, gradients, prepare=lambda row, update: None, **keys):
    """The same by torch.optim, every member on its own."""
    members = []
    for member in range(len(start)):
        row = torch.nn.Parameter(start[member].clone())
        optimizer, points = cls([row], **keys), []
        for update, gradient in enumerate(gradients[:, member]):
            row.grad = gradient.clone()
            prepare(row, update)
            optimizer.step()
            points.append(row.detach().clone())
        members.append(torch.stack(points))
    return torch.stack(members, dim=1)


def error(ours, theirs):
    """Largest difference relative to the largest entry so far on the path."""
    scale = theirs.abs().flatten(1).amax(dim=1).cummax(dim=0).values
    return float(((ours - theirs).abs().flatten(1).amax(dim=1) / scale).max())
