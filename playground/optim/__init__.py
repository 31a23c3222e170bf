"""Optimizers as chains of small transforms, and steppers that say which gradients they get.

A transform maps a value [M, N] to a value [M, N] and keeps its state in tensors whose leading
axis is M. An optimizer is a fixed order of them:

    gradient -> clip by value -> clip by global norm -> coupled weight decay (L2)
             -> direction (momentum, Adam, ...) -> decoupled weight decay
             -> times minus the scheduled learning rate -> update

The update is a value before it is applied, so that probes can look at it and a trust region
can refuse it; nothing here writes parameters. Every hyperparameter is a float or an [M, 1]
tensor, so that one run trains many settings at once, and a member that has stopped keeps its
state, its update count included.

Modules, in reading order:
    config         what a user can set; imports no torch, so that help and errors are instant
    schedules      the factor on the learning rate
    transforms     clipping, weight decay, momentum, Adagrad, RMSprop
    adam           Adam and AMSGrad, with torch's fused kernel where it applies
    torch_adapter  any elementwise class of torch.optim as a transform
    chain          ``Optimizer``: the order above, counts, masks and checkpoints
    steppers       how a round becomes the gradients that are applied

Shape legend: M members, N parameters of a player.
"""
