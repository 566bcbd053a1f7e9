# Speech: synthesised or as published, checked, and turned into features.


rule synthesize:
    input:
        corpus=f"{WORK}/corpus.yaml",
    output:
        directory(f"{WORK}/synthetic"),
    log:
        f"{WORK}/synthesize.log",
    benchmark:
        f"{WORK}/synthesize.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    threads: 2
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        sets=[],
    message:
        "Synthesise the embedded corpus"
    shell:
        "asr-distill synthesize {input.corpus:q} {output:q} {params.sets:q} --workers {threads} --log {log:q}"


use rule synthesize as synthesize_set with:
    input:
        corpus=f"{WORK}/sets.yaml",
        scored=scored_elsewhere,
        texts=spoken_text_files,
    output:
        directory(f"{WORK}/synthetic_{{set}}"),
    log:
        f"{WORK}/synthesize_{{set}}.log",
    benchmark:
        f"{WORK}/synthesize_{{set}}.tsv"
    params:
        sets=synthesis_options,
    message:
        "Synthesise the set {wildcards.set}"


rule prepare:
    input:
        corpus=corpus_record,
        synthetic=synthetic_corpus,
    output:
        cuts=f"{CORPUS}/{{part}}/cuts.jsonl.gz",
        features=f"{CORPUS}/{{part}}/features.lca",
        references=f"{CORPUS}/{{part}}/references.jsonl",
        quarantine=f"{CORPUS}/{{part}}/quarantine.csv",
        statistics=f"{CORPUS}/{{part}}/statistics.json",
    log:
        f"{CORPUS}/{{part}}/prepare.log",
    benchmark:
        f"{CORPUS}/{{part}}/prepare.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(12 * 60),
    params:
        folder=part_folder,
        synthetic=synthetic_folder,
    message:
        "Check and prepare {wildcards.part}"
    shell:
        "asr-distill prepare {input.corpus:q} {wildcards.part:q} {params.folder:q} "
        "--synthetic {params.synthetic:q} --threads {threads} --log {log:q}"


use rule prepare as prepare_training with:
    wildcard_constraints:
        part=one_of(TRAINING),
    priority: 5  # the largest first, so that none is left for one core at the end


# In shards, which are no declared outputs: Snakemake would delete them before it goes on where a job was killed.
use rule prepare as prepare_shards with:
    output:
        shards=f"{CORPUS}/{{part}}/shards.json",
        references=f"{CORPUS}/{{part}}/references.jsonl",
        quarantine=f"{CORPUS}/{{part}}/quarantine.csv",
        statistics=f"{CORPUS}/{{part}}/statistics.json",
    wildcard_constraints:
        part=one_of(SHARDED),
    priority: 5  # the largest first, so that none is left for one core at the end


ruleorder: prepare_shards > prepare_training > prepare


rule overview:
    input:
        corpus=f"{WORK}/corpus.yaml",
        statistics=prepared("statistics.json"),
        references=prepared("references.jsonl"),
        quarantine=prepared("quarantine.csv"),
    output:
        overview=f"{WORK}/overview.csv",
        quarantine=f"{WORK}/quarantine.csv",
    log:
        f"{WORK}/overview.log",
    benchmark:
        f"{WORK}/overview.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        folder=corpus_folder,
        sets=[],
    message:
        "List the parts of the corpus"
    shell:
        "asr-distill overview {input.corpus:q} {params.folder:q} {output.overview:q} {output.quarantine:q} "
        "{params.sets:q} --log {log:q}"


use rule overview as overview_with_sets with:
    input:
        corpus=f"{WORK}/sets.yaml",
        statistics=statistics_with_sets,
        references=references_with_sets,
        quarantine=quarantine_with_sets,
    output:
        overview=f"{WORK}/overview+{{sets}}.csv",
        quarantine=f"{WORK}/quarantine+{{sets}}.csv",
    log:
        f"{WORK}/overview+{{sets}}.log",
    benchmark:
        f"{WORK}/overview+{{sets}}.tsv"
    params:
        folder=corpus_folder,
        sets=set_options,
    message:
        "List the parts of the corpus with the sets {wildcards.sets}"
