"""What polysafe needs at run time: its licences, its known vulnerabilities, and its bill of materials.

    python -m tools.supply audit TOOLS          needs pip-licenses and pip-audit in the folder TOOLS
    python -m tools.supply sbom TOOLS OUTPUT    needs cyclonedx-py there

Run by the Python of an environment in which polysafe is installed with its extras. Looked at is what polysafe and its
extras ask for, not what it is developed with.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "polysafe"
NOT_AT_RUN_TIME = frozenset({"dev", "fuzz", "real"})
"""Extras for work on polysafe, and of model weights, whose terms are told where they are imported."""
ALLOWED = (
    *("0BSD", "Apache", "BSD", "BSL-1.0", "CC0", "CNRI-Python", "ISC", "LLVM-exception", "MIT", "MPL"),
    *("Mozilla Public", "PSF", "Python Software Foundation", "Unlicense", "Zlib"),
)
"""Words of which every licence of a package has to have one. Those of the MPL bind files, not what imports them."""
WITH_A_REASON: Mapping[str, str] = {
    "chardet": "LGPL; comes with the extra lm-eval alone (pytablewriter asks for it), is imported as it is and not "
    "distributed with polysafe",
    "agent-client-protocol": "names no licence; the licence file that it installs is the Apache License 2.0",
}


def closure(project: str = PROJECT, without: Iterable[str] = NOT_AT_RUN_TIME) -> dict[str, Distribution]:
    """Name -> distribution, of everything that a project asks for, itself left out.

    Args:
        project: Name of the project, which is installed.
        without: Its extras that are not asked for.
    """
    extras = set(distribution(project).metadata.get_all("Provides-Extra") or ()) - set(without)
    waiting, seen = [(project, frozenset(extras))], set[tuple[str, frozenset[str]]]()
    found: dict[str, Distribution] = {}
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # of an extra that is not installed
        waiting += _asked_for(found[name], wanted)
    return {name: found[name] for name in sorted(found) if name != project}


def _asked_for(one: Distribution, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    for requirement in map(Requirement, one.requires or ()):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in (extras or {""})):
            yield canonicalize_name(requirement.name), frozenset(requirement.extras)


def refused(licences: Mapping[str, str], reasons: Mapping[str, str] = WITH_A_REASON) -> dict[str, str]:
    """Package -> licence, of those that may not be needed.

    Args:
        licences: Package -> what its metadata say.
        reasons: Packages that are accepted whatever they say.
    """
    return {name: text for name, text in licences.items() if name not in reasons and not _is_allowed(text)}


def _is_allowed(text: str) -> bool:
    first = next(iter(text.strip().splitlines()), "")  # some packages have the whole licence here
    ways = [re.split(r"\s+AND\s+|;", way) for way in re.split(r"\s+OR\s+", first)]
    return any(all(any(word in each for word in ALLOWED) for each in parts) for parts in ways)


def _licences(tools: Path, names: Sequence[str]) -> dict[str, str]:
    command = [str(tools / "pip-licenses"), "--python", sys.executable, "--from", "mixed", "--with-system"]
    done = subprocess.run([*command, "--format", "json", "--packages", *names], check=True, capture_output=True)
    return {canonicalize_name(row["Name"]): row["License"] for row in json.loads(done.stdout)}


def _check_licences(tools: Path, needed: Mapping[str, Distribution]) -> bool:
    licences = _licences(tools, list(needed))
    for name, text in refused(licences).items():
        print(f"licence not allowed: {name} {needed[name].version}: {text.splitlines()[0]}")
    for name in sorted(WITH_A_REASON.keys() & licences.keys()):
        print(f"licence accepted: {name}: {WITH_A_REASON[name]}")
    unread = sorted(needed.keys() - licences.keys())
    print(f"{len(licences)} packages have a licence that was read, of {len(needed)}", *unread)
    return not refused(licences) and not unread


def _check_vulnerabilities(tools: Path, needed: Mapping[str, Distribution]) -> bool:
    """Asks the advisory services, one after the other. That none answers is a failure and is said as one."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
        pins.writelines(f"{name}=={one.version.partition('+')[0]}\n" for name, one in needed.items())
        pins.flush()
        for service in ("pypi", "osv"):
            words = ["--requirement", pins.name, "--no-deps", "--disable-pip", "--vulnerability-service", service]
            command = [str(tools / "pip-audit"), *words, "--format", "json", "--progress-spinner", "off"]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            lines, fine = found_by(done.stdout, len(needed))
            if fine is not None:
                print("\n".join(lines), f"(advisories of {service})")
                return fine
            print(f"the advisories of {service} could not be read: {[*done.stderr.strip().splitlines(), *lines][-1]}")
    print("known vulnerabilities were NOT looked for: no advisory service answered")
    return False


def found_by(report: str, needed: int) -> tuple[list[str], bool | None]:
    """What a report of pip-audit says, and whether all is well; None where it looked nothing up.

    A package that the service does not know is skipped, and without a service all of them are: pip-audit then says that
    it found nothing.

    Args:
        report: Its JSON; anything else is no report.
        needed: Packages that should be in it.
    """
    try:
        packages = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return [], None
    skipped = [one["name"] for one in packages if "skip_reason" in one]
    bad = [f"{one['name']} {one['version']}: {each['id']}" for one in packages for each in one.get("vulns", ())]
    if len(skipped) == len(packages):
        return [f"none of {len(packages)} packages was looked up"], None
    lines = [*bad, *(f"not looked up: {name}" for name in skipped)]
    lines.append(f"{len(packages) - len(skipped)} of {needed} packages were looked up, {len(bad)} vulnerabilities")
    return lines, not bad and not skipped and len(packages) == needed


def audit(tools: Path) -> int:
    """Licences and vulnerabilities; the exit code."""
    needed = closure()
    fine = [_check_licences(tools, needed), _check_vulnerabilities(tools, needed)]
    return 0 if all(fine) else 1


def only(bill: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """A CycloneDX bill of the packages named, its root among them, and nothing else."""
    kept = set(names)
    components = [one for one in bill.get("components", ()) if canonicalize_name(one["name"]) in kept]
    references = {one["bom-ref"] for one in components} | {bill["metadata"]["component"]["bom-ref"]}
    depends = [
        {**one, **({"dependsOn": [ref for ref in one["dependsOn"] if ref in references]} if "dependsOn" in one else {})}
        for one in bill.get("dependencies", ())
        if one["ref"] in references
    ]
    return {**bill, "components": components, "dependencies": depends}


def sbom(tools: Path, output: Path) -> int:
    """Writes the bill of materials of this environment's polysafe as CycloneDX JSON, and reads it again."""
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    words = ["environment", sys.executable, "--pyproject", str(pyproject), "--output-format", "JSON"]
    command = [str(tools / "cyclonedx-py"), *words, "--output-reproducible"]
    made = subprocess.run(command, check=True, capture_output=True)
    bill = only(json.loads(made.stdout), closure())
    output.write_text(json.dumps(bill, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    validate(tools, output)
    print(f"{output}: {bill['bomFormat']} {bill['specVersion']}, {len(bill['components'])} packages")
    return 0


def validate(tools: Path, bill: Path) -> None:
    """Holds a bill against the schema of its version, by the library that wrote it."""
    program = (
        "import sys; from cyclonedx.schema import SchemaVersion; "
        "from cyclonedx.validation.json import JsonStrictValidator; "
        "error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read()); "
        "sys.exit(str(error) if error else 0)"
    )
    subprocess.run([str(tools / "python"), "-c", program, str(bill)], check=True)


def main(arguments: Sequence[str]) -> int:
    """One of the two."""
    match arguments:
        case ["audit", tools]:
            return audit(Path(tools))
        case ["sbom", tools, output]:
            return sbom(Path(tools), Path(output))
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
