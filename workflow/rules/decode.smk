# Transcription by trained models: of unlabelled speech for their students, of dev and test speech for the tables.


rule pseudo_label:
    input:
        model=f"{RUN}/model.safetensors",
        tokenizer=TOKENIZER,
        settings=f"{WORK}/decoding.yaml",
        cuts=f"{CORPUS}/{{part}}/cuts.jsonl.gz",
        features=f"{CORPUS}/{{part}}/features.lca",
    output:
        f"{RUN}/pseudo_labels/{{part}}.jsonl",
    log:
        f"{RUN}/pseudo_labels/{{part}}.log",
    benchmark:
        f"{RUN}/pseudo_labels/{{part}}.tsv"
    priority: 10  # students wait for it
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        gpu=min(1, GPUS),
        mem_mb=growing(8000),
        runtime=growing(12 * 60),
    params:
        corpus=corpus_folder,
    message:
        "Transcribe {wildcards.part} with {wildcards.run} (seed {wildcards.seed})"
    shell:
        "asr-distill pseudo-label {input.model:q} {wildcards.part:q} {output:q} --corpus {params.corpus:q} "
        "--tokenizer {input.tokenizer:q} --settings {input.settings:q} --threads {threads} --log {log:q}"


# Parts in shards are transcribed by as many jobs as the scale says, whose blocks of shards are put together again.
rule pseudo_label_block:
    input:
        model=f"{RUN}/model.safetensors",
        tokenizer=TOKENIZER,
        settings=f"{WORK}/decoding.yaml",
        shards=f"{CORPUS}/{{part}}/shards.json",
    output:
        temp(f"{RUN}/pseudo_labels/{{part}}/{{block}}-of-{{blocks}}.jsonl"),
    log:
        f"{RUN}/pseudo_labels/{{part}}/{{block}}-of-{{blocks}}.log",
    benchmark:
        f"{RUN}/pseudo_labels/{{part}}/{{block}}-of-{{blocks}}.tsv"
    wildcard_constraints:
        block=r"\d+",
        blocks=r"\d+",
    priority: 10  # students wait for it
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        gpu=min(1, GPUS),
        mem_mb=growing(8000),
        runtime=growing(12 * 60),
    params:
        corpus=corpus_folder,
    message:
        "Transcribe block {wildcards.block} of {wildcards.blocks} of {wildcards.part} with {wildcards.run} (seed {wildcards.seed})"
    shell:
        "asr-distill pseudo-label {input.model:q} {wildcards.part:q} {output:q} --corpus {params.corpus:q} "
        "--tokenizer {input.tokenizer:q} --settings {input.settings:q} "
        "--block {wildcards.block} --blocks {wildcards.blocks} --threads {threads} --log {log:q}"


rule merge_pseudo_labels:
    input:
        pseudo_label_blocks,
    output:
        f"{RUN}/pseudo_labels/{{part}}.jsonl",
    log:
        f"{RUN}/pseudo_labels/{{part}}.log",
    benchmark:
        f"{RUN}/pseudo_labels/{{part}}.tsv"
    wildcard_constraints:
        part=one_of(SHARDED),
    priority: 10  # students wait for it
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    message:
        "Put together the transcripts of {wildcards.part} by {wildcards.run} (seed {wildcards.seed})"
    shell:
        "asr-distill merge-pseudo-labels {wildcards.part:q} {output:q} {input:q} --log {log:q}"


ruleorder: merge_pseudo_labels > pseudo_label


rule decode:
    input:
        model=f"{RUN}/model.safetensors",
        tokenizer=TOKENIZER,
        settings=f"{WORK}/decoding.yaml",
        cuts=run_cuts,
        features=run_features,
    output:
        hypotheses=f"{RUN}/hypotheses.jsonl",
        timing=f"{RUN}/decoding.json",
    log:
        f"{RUN}/decode.log",
    benchmark:
        f"{RUN}/decode.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        gpu=min(1, GPUS),
        mem_mb=growing(8000),
        runtime=growing(12 * 60),
    params:
        corpus=corpus_folder,
        folder=run_folder,
        parts=part_options,
    message:
        "Transcribe dev and test sets with {wildcards.run} (seed {wildcards.seed})"
    shell:
        "asr-distill decode {input.model:q} {params.folder:q} {params.parts:q} --corpus {params.corpus:q} "
        "--tokenizer {input.tokenizer:q} --settings {input.settings:q} --threads {threads} --log {log:q}"


rule decode_ctc:
    input:
        model=f"{RUN}/model.safetensors",
        decoder=attention_decoder,
        tokenizer=CTC_TOKENIZER,
        settings=f"{WORK}/language_models.yaml",
        ngram=NGRAM,
        cuts=prepared("cuts.jsonl.gz", SCORED),
        features=prepared("features.lca", SCORED),
        references=prepared("references.jsonl", SCORED),
    output:
        hypotheses=f"{RUN}/hypotheses.jsonl",
        timing=f"{RUN}/decoding.json",
        searches=directory(f"{RUN}/searches"),
    log:
        f"{RUN}/decode.log",
    benchmark:
        f"{RUN}/decode.tsv"
    wildcard_constraints:
        run=one_of(CTC_RUNS),
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        gpu=min(1, GPUS),
        mem_mb=growing(8000),
        runtime=growing(12 * 60),
    params:
        corpus=corpus_folder,
        folder=run_folder,
        decoder=decoder_option,
        dev=dev_options,
        test=test_options,
    message:
        "Transcribe dev and test sets with {wildcards.run} (seed {wildcards.seed}), greedily and by beam search"
    shell:
        "asr-distill decode-ctc {input.model:q} {params.folder:q} {params.dev:q} {params.test:q} {params.decoder:q} "
        "--corpus {params.corpus:q} --tokenizer {input.tokenizer:q} --settings {input.settings:q} "
        "--ngram {input.ngram:q} --threads {threads} --log {log:q}"


use rule decode as decode_streaming with:
    output:
        **rules.decode.output,
        emissions=f"{RUN}/emissions.jsonl",
    wildcard_constraints:
        run=one_of(STREAMING),


ruleorder: decode_ctc > decode_streaming > decode


# How late streaming runs write their words: against where a bi-directional run aligns them.
rule align:
    input:
        model=f"{RUN}/model.safetensors",
        tokenizer=TOKENIZER,
        cuts=prepared("cuts.jsonl.gz", TESTED),
        features=prepared("features.lca", TESTED),
    output:
        f"{RUN}/alignment.jsonl",
    log:
        f"{RUN}/align.log",
    benchmark:
        f"{RUN}/align.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        gpu=min(1, GPUS),
        mem_mb=growing(8000),
        runtime=growing(12 * 60),
    params:
        corpus=corpus_folder,
        parts=[word for part in TESTED for word in ("--part", part)],
    message:
        "Align the transcripts of the test sets with {wildcards.run} (seed {wildcards.seed})"
    shell:
        "asr-distill align {input.model:q} {output:q} {params.parts:q} --corpus {params.corpus:q} "
        "--tokenizer {input.tokenizer:q} --threads {threads} --log {log:q}"


rule latency:
    input:
        study=f"{REPORT}/study.yaml",
        references=prepared("references.jsonl", TESTED),
        alignments=alignments,
        emissions=emissions,
    output:
        report(
            f"{STUDY}/latency.csv",
            caption="../report/latency.rst",
            category="{study}, {selection}",
            labels={"table": "latency"},
        ),
    log:
        f"{REPORT}/latency.log",
    benchmark:
        f"{REPORT}/latency.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        corpus=corpus_folder,
        runs=study_folder,
    message:
        "Measure the emission latency of {wildcards.study}, {wildcards.selection}"
    shell:
        "asr-distill latency {input.study:q} {params.corpus:q} {params.runs:q} {output:q} --log {log:q}"
