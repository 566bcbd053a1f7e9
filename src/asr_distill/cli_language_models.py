"""The stages that make language models and what recognisers learn from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr_distill.stages import Log, Threads, all_texts, device, read_texts, start

app = typer.Typer()


@app.command()
def text(
    record: Path,
    references: list[Path],
    labelled: Annotated[list[Path], typer.Option(help="References of labelled parts; the text is to speak alike.")],
    output: Annotated[Path, typer.Option()],
    counts: Annotated[Path, typer.Option()],
    log: Log = None,
) -> None:
    """Write the text of RECORD's language models, a sentence a line, without the scored REFERENCES."""
    start(log)
    from dataclasses import asdict

    from asr_distill.experiment import LanguageModelsRecord
    from asr_distill.files import write_json, write_text
    from asr_distill.text.text_corpus import found_lines, grammar_lines, prepare_text

    settings = LanguageModelsRecord.read(record)
    source = settings.language_models.text
    if source.source == "grammar":
        name, lines = "grammar", grammar_lines(source.lines, seed=source.seed, domains=source.domains)
    else:
        name = str(Path(settings.data) / source.path)
        lines = found_lines(source, data=Path(settings.data))
    scored, learnt = (all_texts(paths) for paths in (references, labelled))
    kept, counted = prepare_text(lines, exclude=scored, labelled=learnt, source=name)
    write_json(counts, asdict(counted))
    write_text(output, "".join(f"{line}\n" for line in kept))


@app.command()
def bert(
    record: Path,
    text: Path,
    tokenizer: Annotated[Path, typer.Option()],
    output: Annotated[Path, typer.Option()],
    threads: Threads = 1,
    log: Log = None,
) -> None:
    """Train BERT on TEXT into the folder OUTPUT, resuming where an earlier call stopped, or take over another's."""
    start(log, threads=threads)
    from asr_distill.experiment import LanguageModelsRecord, PretrainedBert
    from asr_distill.text.tokenizer import Tokenizer
    from asr_distill.training.bert import train_bert
    from asr_distill.training.pretrained_bert import take_over_bert

    settings = LanguageModelsRecord.read(record)
    size, training = settings.language_models.bert, settings.language_models.bert_training
    lines = text.read_text(encoding="utf-8").splitlines()
    options = {"tokenizer": Tokenizer.load(tokenizer), "training": training, "seed": 0, "output": output}
    if isinstance(size, PretrainedBert):
        take_over_bert(Path(settings.data) / size.pretrained, lines, device=device(), **options)
    else:
        train_bert(lines, size=size, **options)


@app.command()
def soft_labels(
    bert: Path,
    references: list[Path],
    mask: Annotated[str, typer.Option()],
    top_k: Annotated[int, typer.Option()],
    tokenizer: Annotated[Path, typer.Option()],
    output: Annotated[Path, typer.Option()],
    hidden_states: bool = False,
    threads: Threads = 1,
    log: Log = None,
) -> None:
    """Ask the BERT of a folder for its distributions at every token of the transcripts in REFERENCES."""
    start(log, threads=threads)
    from asr_distill.text.soft_labels import soft_labels as ask
    from asr_distill.text.tokenizer import Tokenizer

    labels = ask(
        bert,
        read_texts(references),
        tokenizer=Tokenizer.load(tokenizer),
        top_k=top_k,
        mask=mask,
        hidden_states=hidden_states,
        device=device(),
    )
    labels.save(output)


@app.command()
def ngram(
    record: Path,
    text: Path,
    tokenizer: Annotated[Path, typer.Option()],
    output: Annotated[Path, typer.Option()],
    log: Log = None,
) -> None:
    """Estimate the token n-gram of RECORD on TEXT and write it as ARPA."""
    start(log)
    from asr_distill.experiment import LanguageModelsRecord
    from asr_distill.text.ngram import estimate
    from asr_distill.text.tokenizer import Tokenizer

    settings = LanguageModelsRecord.read(record).language_models.ngram
    tokens = Tokenizer.load(tokenizer)
    sentences = (tokens.encode(line) for line in text.read_text(encoding="utf-8").splitlines())
    model = estimate(sentences, order=settings.order, vocabulary=tokens.vocabulary, prune=settings.prune)
    model.write_arpa(output)


@app.command()
def decode_ctc(
    model: Path,
    output: Path,
    dev: Annotated[list[str], typer.Option()],
    test: Annotated[list[str], typer.Option()],
    corpus: Annotated[Path, typer.Option()],
    tokenizer: Annotated[Path, typer.Option()],
    settings: Annotated[Path, typer.Option()],
    ngram: Annotated[Path, typer.Option()],
    decoder: Path | None = None,
    threads: Threads = 1,
    log: Log = None,
) -> None:
    """Transcribe DEV and TEST parts with a CTC MODEL into OUTPUT: greedily, by beam search, by its decoder."""
    start(log, threads=threads)
    from asr_distill.decoding import ctc_decode
    from asr_distill.experiment import LanguageModelsRecord
    from asr_distill.models.ctc_storage import load_ctc, load_decoder
    from asr_distill.text.tokenizer import Tokenizer

    tokens = Tokenizer.load(tokenizer)
    options = {"tokenizer": tokens.fingerprint, "device": device()}
    ctc_decode.decode_ctc(
        load_ctc(model, **options),
        decoder=None if decoder is None else load_decoder(decoder, **options),
        dev=dev,
        test=test,
        corpus=corpus,
        tokenizer=tokens,
        settings=LanguageModelsRecord.read(settings).language_models.search,
        arpa=ngram,
        output=output,
    )


@app.command()
def knowledge(
    study: Path,
    runs: Path,
    output: Path,
    bert: Annotated[Path, typer.Option()],
    corpus: Annotated[Path, typer.Option()],
    tokenizer: Annotated[Path, typer.Option()],
    threads: Threads = 1,
    log: Log = None,
) -> None:
    """Choose the utterances that STUDY shows, and ask BERT and attention decoders about them, into OUTPUT (npz)."""
    start(log, threads=threads)
    from asr_distill.decoding.knowledge import write_knowledge
    from asr_distill.experiment import StudyRecord
    from asr_distill.reporting.samples import sampled_part, transcripts

    record = StudyRecord.read(study)
    samples = record.study.samples
    compared = None
    if samples is not None:
        part = sampled_part(record)
        left, right = (transcripts(record, system, part=part, runs=runs) for system in samples.compared)
        compared = (left, right)
    write_knowledge(record, compared=compared, runs=runs, bert=bert, corpus=corpus, tokenizer=tokenizer, output=output)
