"""A training run with some of what it is made of exchanged."""

import dataclasses


def altered(run, *, settings=None, sampler=None, scorer=None, stream=None, **changes):
    """Returns the run with other settings (the batch's reach its source), sampler, scorer, prompt
    stream, or other fields.
    """
    actor = dataclasses.replace(
        run.actor, sampler=sampler or run.actor.sampler, scorer=scorer or run.actor.scorer
    )
    settings = settings or run.settings
    source = dataclasses.replace(
        run.source, actor=actor, batch=settings.batch, stream=stream or run.source.stream
    )
    evaluator = dataclasses.replace(run.evaluator, actor=actor)
    return dataclasses.replace(
        run, settings=settings, source=source, evaluator=evaluator, **changes
    )
