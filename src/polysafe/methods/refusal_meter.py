"""Validation without a judge: refusal log-odds of harmful and of harmless prompts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from polysafe.data.openings import Known, has_openings, opening_languages, openings
from polysafe.data.prompts import Prompt
from polysafe.errors import DataError
from polysafe.methods.constraints import OVER_REFUSAL, REFUSED, Reading
from polysafe.methods.validation import PROMPTS, Kept
from polysafe.probe.continuations import Continuations
from polysafe.probe.model import LoadedModel
from polysafe.probe.refusal import RefusalSignal
from polysafe.probe.render import Template, cached_tokenizer
from polysafe.progress import tell


class RefusalMeter:
    """Reads refusal log-odds of validation prompts.

    Args:
        prompts: The prompts.
        template: Whether they go into the chat template; that of the method that is validated.
        known: Gives the openings of a language.

    Raises:
        DataError: No prompt is in a language whose openings are known.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        *,
        template: Template,
        known: Known = openings,
    ) -> None:
        spoken = dict.fromkeys(prompt.language for prompt in prompts)
        told = [language for language in spoken if has_openings(language, known)]
        self._prompts = [prompt for prompt in prompts if prompt.language in told]
        unknown = sorted(set(spoken) - set(told))
        self._template, self._known = template, known
        self.languages = tuple(dict.fromkeys(prompt.language for prompt in self._prompts))
        self.prompts = len(self._prompts)
        self.notes: tuple[str, ...] = (
            "the refusal signal says how answers begin, not what they say: helpful answers are not measured",
            *([f"no refusal openings are known in {', '.join(unknown)}: not validated there"] if unknown else []),
        )
        if not self._prompts:
            raise DataError(
                f"no refusal openings are known in {', '.join(unknown) or 'any language of the prompts'}",
                where="validation",
                remedy=f"languages: {', '.join(sorted(opening_languages()))}; or name a `judge` instead of the signal",
            )

    def prepare(self, model: LoadedModel, languages: Sequence[str], kept: Kept | None = None) -> None:
        """Nothing has to be known of the unedited model."""

    def read(self, model: LoadedModel, languages: Sequence[str]) -> Reading:
        """Log-odds of harmful prompts as `refused`, of harmless ones as `over_refusal`."""
        asked = {prompt.id: prompt for prompt in self._prompts if prompt.language in languages}
        tokenizer = cached_tokenizer(model.source.checkpoint.root)
        signal = RefusalSignal(Continuations(model, tokenizer, template=self._template), known=self._known)
        found: defaultdict[tuple[str, str], dict[str, float | bool]] = defaultdict(dict)
        for done, odds in enumerate(signal.measure(list(asked.values())), start=1):
            prompt = asked[odds.id]
            metric = REFUSED if prompt.kind == "harmful" else OVER_REFUSAL
            if math.isfinite(odds.log_odds):
                found[prompt.language, metric][f"{prompt.set}/{prompt.parallel}"] = odds.log_odds
            tell(PROMPTS, done, len(asked))
        return dict(found)
