"""The command line: one sub-command per stage of the workflow; `snakemake` calls nothing else.

Stages import what they need when they run, because starting torch takes longer than some stages.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from asr_distill import cli_language_models, cli_plan
from asr_distill.devices import RENDEZVOUS, started_by_torchrun
from asr_distill.files import replacing, write_csv, write_text
from asr_distill.locks import lock_job
from asr_distill.stages import Log, Threads, all_texts, device, start

PartSet = Annotated[str | None, typer.Option("--set", help="Parts of this set instead of those without one.")]
PartSets = Annotated[list[str] | None, typer.Option("--set", help="Parts of these sets too.")]

Processes = Annotated[
    int,
    typer.Option(
        min=0, envvar="ASR_DISTILL_PROCESSES", help="Processes on each node, one per GPU; 0 and 1 mean this one alone."
    ),
]
Nodes = Annotated[int, typer.Option(min=1, envvar="ASR_DISTILL_NODES", help="Nodes of the SLURM job to train on.")]

Latency = Annotated[Path | None, typer.Option(help="latency.csv, for a study that shows emission latency.")]

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

app.add_typer(cli_language_models.app)
app.add_typer(cli_plan.app)


def main() -> None:
    """Run a stage; a user's mistake or a full disk ends in one line on standard error and exit status 1."""
    try:
        app()
    except ValueError as error:
        _fail(str(error))
    except OSError as error:
        full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if error.errno not in (*full, errno.ENOENT, errno.EACCES, errno.EROFS):
            raise
        hint = "; free some space and run again" if error.errno in full else ""
        _fail(f"{error.filename or 'file system'}: {error.strerror}{hint}")


@app.command()
def synthesize(
    corpus: Path,
    output: Path,
    part_set: PartSet = None,
    scored: Annotated[list[Path] | None, typer.Option(help="References that no text to be read may hold.")] = None,
    workers: int = 1,
    log: Log = None,
) -> None:
    """Speak the scale's synthetic parts into OUTPUT, laid out as LibriSpeech and Libri-Light."""
    start(log)
    from asr_distill.corpus.synthesize import synthesize as run
    from asr_distill.experiment import CorpusRecord, SyntheticPart, located
    from asr_distill.text.text_corpus import found_lines, prepare_text

    settings = CorpusRecord.read(corpus)
    record, data = settings.corpus, Path(settings.data)
    parts = {name: part for name, part in record.parts.items() if isinstance(part, SyntheticPart)}
    spoken = [name for name, part in parts.items() if part.part_set == part_set]
    while spoken and list(parts)[-1] != spoken[-1]:  # parts at the end do not matter to those before them
        parts.popitem()
    exclude, sentences = all_texts(scored or []), {}
    for name, part in parts.items():
        if part.text is not None:
            lines, source = found_lines(part.text, data=data), str(data / part.text.path)
            with located(f"corpus.parts.{name}.text"):
                sentences[name], _ = prepare_text(lines, exclude=exclude, source=source)
    run(parts, folder=output, seed=record.seed, workers=workers, spoken=spoken, sentences=sentences)


@app.command()
def download(corpus: Path, log: Log = None) -> None:
    """Fetch the parts of CORPUS that say `download: true`, where there is internet: jobs then find them there."""
    start(log)
    from asr_distill.corpus.download import download_parts
    from asr_distill.experiment import CorpusRecord

    names = download_parts(CorpusRecord.read(corpus))
    print(f"{', '.join(names)}: there" if names else f"{corpus}: no part says download: true")


@app.command()
def prepare(
    corpus: Path,
    part: str,
    output: Path,
    synthetic: Path = Path("synthetic"),
    threads: Threads = 1,
    log: Log = None,
) -> None:
    """Check every utterance of a corpus PART and store its features in OUTPUT."""
    start(log, threads=threads)
    from asr_distill.experiment import CorpusRecord
    from asr_distill.features.prepare import prepare as run

    run(part, record=CorpusRecord.read(corpus), synthetic=synthetic, output=output)


@app.command()
def overview(
    corpus: Path, folder: Path, output: Path, quarantine: Path, part_set: PartSets = None, log: Log = None
) -> None:
    """List the prepared parts in FOLDER and what was left out of them; check that no speaker is in two uses."""
    start(log)
    from asr_distill.corpus import overview as module
    from asr_distill.experiment import CorpusRecord

    parts = CorpusRecord.read(corpus).corpus.restricted(part_set or ()).parts
    folders = {part: folder / part for part in parts}
    write_csv(output, module.overview(folders))
    write_csv(quarantine, module.quarantine(folders))


@app.command()
def tokenizer(record: Path, references: list[Path], output: Annotated[Path, typer.Option()], log: Log = None) -> None:
    """Estimate the word pieces on the transcripts in REFERENCES."""
    start(log)
    from asr_distill.experiment import TokenizerRecord
    from asr_distill.text.tokenizer import Tokenizer

    settings = TokenizerRecord.read(record).tokenizer
    lines = [json.loads(line)["text"] for path in references for line in path.read_text(encoding="utf-8").splitlines()]
    with replacing(output) as temporary:
        temporary.write_bytes(Tokenizer.estimate(lines, vocabulary=settings.vocabulary, type=settings.type))


@app.command()
def train(
    run: Path,
    corpus: Annotated[Path, typer.Option()],
    output: Annotated[Path, typer.Option()],
    tokenizer: Annotated[Path | None, typer.Option(help="For all but runs that pre-train an encoder.")] = None,
    teacher: Path | None = None,
    initial: Annotated[Path | None, typer.Option(help="Model or encoder from whose encoder the run starts.")] = None,
    soft_labels: Path | None = None,
    pseudo_labels: Annotated[list[Path] | None, typer.Option()] = None,
    processes: Processes = 1,
    nodes: Nodes = 1,
    threads: Threads = 1,
    log: Log = None,
) -> None:
    """Train the run described in RUN (run.yaml) into the folder OUTPUT, resuming where an earlier call stopped."""
    several = (processes > 1 or nodes > 1) and not started_by_torchrun()
    start(log, threads=None if several else threads)
    from asr_distill.experiment import RunRecord

    record = RunRecord.read(run)
    if not started_by_torchrun() and RENDEZVOUS not in os.environ:  # else the process that started this one has it
        lock_job(output)
    if several:
        from asr_distill.training.launch import Layout, launch

        layout = Layout(processes=max(1, processes), nodes=nodes, threads=threads)
        layout.check(record)
        return launch(layout)
    from asr_distill.training.loop import train as run_training
    from asr_distill.training.paths import TrainingPaths

    paths = TrainingPaths(
        corpus=corpus,
        tokenizer=tokenizer,
        teacher=teacher,
        initial=initial,
        soft_labels=soft_labels,
        pseudo_labels=pseudo_labels or [],
        output=output,
    )
    return run_training(record, paths=paths)


@app.command()
def pseudo_label(
    model: Path,
    part: str,
    output: Path,
    corpus: Annotated[Path, typer.Option()],
    tokenizer: Annotated[Path, typer.Option()],
    settings: Annotated[Path, typer.Option()],
    block: Annotated[int, typer.Option(min=0, help="Of a part in shards: which block of them, from 0 on.")] = 0,
    blocks: Annotated[int, typer.Option(min=1, help="How many blocks there are.")] = 1,
    threads: Threads = 1,
    log: Log = None,
) -> None:
    """Transcribe the unlabelled PART with a teacher MODEL into OUTPUT, a line of JSON per utterance."""
    if block >= blocks:
        raise ValueError(f"--block: {block} is not one of {blocks}; write a number from 0 to {blocks - 1}")
    start(log, threads=threads)
    from asr_distill.decoding import decode
    from asr_distill.experiment import DecodingRecord

    tokens, loaded = _load(model, tokenizer)
    decode.pseudo_label(
        loaded,
        part=part,
        corpus=corpus,
        tokenizer=tokens,
        settings=DecodingRecord.read(settings).pseudo_labels,
        output=output,
        block=(block, blocks),
    )


@app.command()
def merge_pseudo_labels(part: str, output: Path, blocks: list[Path], log: Log = None) -> None:
    """Put the transcripts of the BLOCKS of an unlabelled PART one after the other into OUTPUT."""
    start(log)
    from asr_distill.decoding.decode import merge_pseudo_labels as run

    run(blocks, part=part, output=output)


@app.command(name="decode")
def decode_command(
    model: Path,
    output: Path,
    part: Annotated[list[str], typer.Option()],
    corpus: Annotated[Path, typer.Option()],
    tokenizer: Annotated[Path, typer.Option()],
    settings: Annotated[Path, typer.Option()],
    threads: Threads = 1,
    log: Log = None,
) -> None:
    """Transcribe dev and test parts with MODEL into the folder OUTPUT."""
    start(log, threads=threads)
    from asr_distill.decoding import decode
    from asr_distill.experiment import DecodingRecord

    tokens, loaded = _load(model, tokenizer)
    chosen = DecodingRecord.read(settings).decoding
    decode.decode_parts(loaded, parts=part, corpus=corpus, tokenizer=tokens, settings=chosen, output=output)


@app.command()
def align(
    model: Path,
    output: Path,
    part: Annotated[list[str], typer.Option()],
    corpus: Annotated[Path, typer.Option()],
    tokenizer: Annotated[Path, typer.Option()],
    threads: Threads = 1,
    log: Log = None,
) -> None:
    """Tell where each word of the transcripts of parts ends, as a bi-directional MODEL aligns them, in OUTPUT."""
    start(log, threads=threads)
    from asr_distill.decoding.forced_alignment import write_alignment

    tokens, loaded = _load(model, tokenizer)
    write_alignment(loaded, parts=part, corpus=corpus, tokenizer=tokens, output=output)


@app.command()
def score(study: Path, corpus: Path, runs: Path, scores: Path, errors: Path, log: Log = None) -> None:
    """Count the word errors of every run of a STUDY into SCORES and, by utterance, ERRORS."""
    start(log)
    from asr_distill.experiment import StudyRecord
    from asr_distill.reporting import scores as module

    references = _references(StudyRecord.read(study), corpus)
    module.score(study, references=references, runs=runs, scores=scores, errors=errors)


@app.command()
def latency(study: Path, corpus: Path, runs: Path, output: Path, log: Log = None) -> None:
    """Measure how late the streaming runs of a STUDY write the words of its test parts, into OUTPUT."""
    start(log)
    from asr_distill.experiment import StudyRecord
    from asr_distill.reporting.latency import write_latency

    write_latency(study, references=_references(StudyRecord.read(study), corpus), runs=runs, output=output)


@app.command()
def tables(
    study: Path,
    scores: Path,
    runs: Path,
    overview: Path,
    output: Path,
    knowledge: Annotated[Path | None, typer.Option(help="For a study with decoded samples: what is shown.")] = None,
    corpus: Path = Path("corpus"),
    language_models: Annotated[Path | None, typer.Option(help="Folder of those that the runs use.")] = None,
    latency: Latency = None,
    errors: Annotated[Path | None, typer.Option(help="errors.csv, for tables of paired comparisons.")] = None,
    log: Log = None,
) -> None:
    """Write into OUTPUT the paper's tables, the corpus, and where they are given language models and samples."""
    start(log)
    from asr_distill.experiment import StudyRecord
    from asr_distill.reporting import tables as module

    module.write_tables(study, scores=scores, runs=runs, latency=latency, output=output)
    module.write_corpus_table(study, overview=overview, output=output)
    if errors is not None:
        from asr_distill.reporting.verdicts import write_verdicts
        from asr_distill.reporting.weak_teachers import write_gains

        write_verdicts(study, errors=errors, output=output)
        write_gains(study, errors=errors, output=output)
    if knowledge is not None:
        from asr_distill.reporting.samples import write_samples

        references = _references(StudyRecord.read(study), corpus)
        write_samples(study, references=references, runs=runs, knowledge=knowledge, output=output)
    if language_models is not None:
        from asr_distill.reporting.language_models import write_language_models_table

        write_language_models_table(study, folder=language_models, output=output)


@app.command()
def claims(study: Path, errors: Path, runs: Path, output: Path, log: Log = None) -> None:
    """Decide the paper's claims into OUTPUT."""
    start(log)
    from asr_distill.reporting.claims import write_claims

    write_claims(study, errors=errors, runs=runs, output=output)


@app.command()
def illustrate(
    study: Path,
    output: Path,
    model: Annotated[list[Path], typer.Option(help="One per run of the study's lattice figure, in its order.")],
    corpus: Annotated[Path, typer.Option()],
    tokenizer: Annotated[Path, typer.Option()],
    threads: Threads = 1,
    log: Log = None,
) -> None:
    """Compute the posteriors and spectrograms that two figures show into OUTPUT (npz)."""
    start(log, threads=threads)
    from asr_distill.decoding.illustrations import illustrate as run
    from asr_distill.experiment import StudyRecord

    record = StudyRecord.read(study)
    models = dict(zip(record.study.lattice.runs, model, strict=True))
    run(record, models=models, corpus=corpus, tokenizer=tokenizer, output=output)


@app.command()
def figures(
    study: Path,
    scores: Path,
    runs: Path,
    output: Path,
    illustrations: Path | None = None,
    knowledge: Path | None = None,
    latency: Latency = None,
    errors: Annotated[Path | None, typer.Option(help="errors.csv, for figures of paired comparisons.")] = None,
    log: Log = None,
) -> None:
    """Draw the figures and write their captions into OUTPUT."""
    start(log)
    from asr_distill.reporting.figures import write_figures

    write_figures(
        study,
        scores=scores,
        runs=runs,
        illustrations=illustrations,
        knowledge=knowledge,
        latency=latency,
        errors=errors,
        output=output,
    )


@app.command()
def times(
    study: Path, corpus: Path, runs: Path, output: Path, scores: Annotated[Path, typer.Option()], log: Log = None
) -> None:
    """Write what varies from run to run into OUTPUT: times, memory, real-time factors."""
    start(log)
    from asr_distill.experiment import StudyRecord
    from asr_distill.reporting.times import write_times

    references = _references(StudyRecord.read(study), corpus)
    write_times(study, references=references, runs=runs, scores=scores, output=output)


@app.command()
def provenance(
    study: Path,
    runs: Path,
    output: Path,
    record: Annotated[list[Path], typer.Option(help="Further resolved configuration.")],
    work: Annotated[Path, typer.Option(help="Folder searched for Snakemake's benchmark files.")],
    root: Path = Path(),
    log: Log = None,
) -> None:
    """Write down what the results come from: commit, configuration, packages, hardware, time and memory by job."""
    start(log)
    from asr_distill.reporting.provenance import write_provenance

    write_provenance(study, records=record, runs=runs, work=work, root=root, output=output)


@app.command()
def report(
    study: Path,
    results: Path,
    runs: Path,
    overview: Path,
    knowledge: Annotated[Path | None, typer.Option(help="For a study with decoded samples: what is shown.")] = None,
    corpus: Path = Path("corpus"),
    language_models: Annotated[Path | None, typer.Option(help="Folder of those that the runs use.")] = None,
    latency: Latency = None,
    listening: Annotated[Path | None, typer.Option(help="For a study that lets one listen to utterances.")] = None,
    log: Log = None,
) -> None:
    """Write RESULTS/report.html, one file that holds tables, figures, claims and provenance."""
    start(log)
    from asr_distill.experiment import StudyRecord
    from asr_distill.reporting.report import write_report

    write_report(
        study,
        scores=results / "scores.csv",
        claims=results / "claims.csv",
        runs=runs,
        overview=overview,
        tables=results / "tables",
        figures=results / "figures",
        times=results / "times",
        provenance=results / "provenance.json",
        output=results / "report.html",
        knowledge=knowledge,
        references=_references(StudyRecord.read(study), corpus),
        language_models=language_models,
        latency=latency,
        listening=listening,
    )


@app.command()
def listen(study: Path, corpus: Path, runs: Path, output: Path, log: Log = None) -> None:
    """Write sound and transcripts of a few utterances of STUDY's test parts into OUTPUT (JSON)."""
    start(log)
    from asr_distill.experiment import StudyRecord
    from asr_distill.reporting.listening import write_listening

    write_listening(StudyRecord.read(study), corpus=corpus, runs=runs, output=output)


@app.command()
def show(results: Path, scale: str, selection: str = "core") -> None:
    """Print the tables and claims of a finished run, and where its report is."""
    studies = sorted((results / scale).glob(f"*/{selection}/report.html"))
    if not studies:
        raise ValueError(f"{results / scale}: no finished study; run `snakemake --cores all` first")
    for path in studies:
        texts = [*sorted((path.parent / "tables").glob("table*.md")), path.parent / "claims.md"]
        print("\n\n".join(text.read_text(encoding="utf-8").strip() for text in texts))
        print(f"\nReport: {path}")


@app.command()
def publish(
    results: Path = Path("results"),
    published: Path | None = None,
    config: Path = Path("config"),
    readings: Path = Path("docs/readings"),
    allow_dirty: bool = False,
) -> None:
    """Copy finished tables, figures, claims and provenance to results/published/, and write the page about them all."""
    from asr_distill.reporting.publish import publish as run

    published = published or results / "published"
    for folder in run(results, published=published, allow_dirty=allow_dirty):
        print(f"published: {folder}")
    index(published, config=config, readings=readings)


@app.command()
def index(
    published: Path = Path("results/published"),
    config: Path = Path("config"),
    readings: Path = Path("docs/readings"),
) -> None:
    """Write the page about published results beside their folder, README.md."""
    from asr_distill.reporting.index import write_index

    write_index(published, published.parent / "README.md", config=config, readings=readings)


@app.command()
def compare(results: Path = Path("results"), published: Path | None = None) -> None:
    """Tell where a run's word error rates and verdicts differ from the published ones."""
    from asr_distill.reporting.publish import compare as run

    print(run(results, published=published or results / "published"))


@app.command()
def schema(folder: Path) -> None:
    """Write the JSON Schemas of config, scales and studies into FOLDER."""
    from asr_distill.experiment import Config, Scale, Study

    folder.mkdir(parents=True, exist_ok=True)
    for record in (Config, Scale, Study):
        text = json.dumps(record.model_json_schema(), indent=2) + "\n"
        write_text(folder / f"{record.__name__.lower()}.schema.json", text)


def _references(study, corpus: Path) -> dict[str, Path]:
    """Return the references of every part that is scored."""
    return {part: corpus / part / "references.jsonl" for part in study.scored_parts}


def _load(model: Path, tokenizer: Path):
    """Return tokens and model, on the accelerator where there is one."""
    from asr_distill.models.storage import load_model
    from asr_distill.text.tokenizer import Tokenizer

    tokens = Tokenizer.load(tokenizer)
    return tokens, load_model(model, tokenizer=tokens.fingerprint, device=device())


def _fail(message: str) -> None:
    """End with one line; of several processes that train one model, torchrun's agent tells it once for all."""
    if (told := os.environ.get("TORCHELASTIC_ERROR_FILE")) is not None:
        details = {"message": message, "extraInfo": {"py_callstack": "", "timestamp": str(int(time.time()))}}
        Path(told).write_text(json.dumps({"message": details}), encoding="utf-8")
        raise SystemExit(1)
    logging.getLogger(__name__).error(message)
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1)
