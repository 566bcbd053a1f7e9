# From transcripts to tables, claims, figures and the report.


rule score:
    input:
        study=f"{REPORT}/study.yaml",
        references=report_references,
        hypotheses=hypotheses,
        searches=searches,
    output:
        scores=f"{STUDY}/scores.csv",
        errors=f"{REPORT}/errors.csv",
    log:
        f"{REPORT}/score.log",
    benchmark:
        f"{REPORT}/score.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        corpus=corpus_folder,
        runs=study_folder,
    message:
        "Count word errors of {wildcards.study}, {wildcards.selection}"
    shell:
        "asr-distill score {input.study:q} {params.corpus:q} {params.runs:q} {output.scores:q} {output.errors:q} "
        "--log {log:q}"


rule tables:
    input:
        study=f"{REPORT}/study.yaml",
        scores=f"{STUDY}/scores.csv",
        errors=f"{REPORT}/errors.csv",
        latency=emission_latency,
        summaries=summaries,
        timings=timings,
        overview=report_overview,
        costs=costs,
        knowledge=knowledge_of_samples,
        sampled=sampled,
        language_models=language_models,
    output:
        folder=report(
            directory(f"{STUDY}/tables"),
            patterns=["{table}.csv"],
            caption="../report/tables.rst",
            category="{study}, {selection}",
            subcategory="Tables",
            labels={"table": "{table}"},
        ),
    log:
        f"{REPORT}/tables.log",
    benchmark:
        f"{REPORT}/tables.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        runs=study_folder,
        samples=samples_options,
        language_models=language_models_option,
        latency=latency_option,
    message:
        "Write the tables of {wildcards.study}, {wildcards.selection}"
    shell:
        "asr-distill tables {input.study:q} {input.scores:q} {params.runs:q} {input.overview:q} {output.folder:q} "
        "{params.samples:q} {params.language_models:q} {params.latency:q} --errors {input.errors:q} --log {log:q}"


rule claims:
    input:
        study=f"{REPORT}/study.yaml",
        errors=f"{REPORT}/errors.csv",
        timings=timings,
    output:
        csv=report(
            f"{STUDY}/claims.csv",
            caption="../report/claims.rst",
            category="{study}, {selection}",
            labels={"table": "claims"},
        ),
        md=f"{STUDY}/claims.md",
        tex=f"{STUDY}/claims.tex",
    log:
        f"{REPORT}/claims.log",
    benchmark:
        f"{REPORT}/claims.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        runs=study_folder,
        folder=results_folder,
    message:
        "Decide the claims of {wildcards.study}, {wildcards.selection}"
    shell:
        "asr-distill claims {input.study:q} {input.errors:q} {params.runs:q} {params.folder:q} --log {log:q}"


rule illustrate:
    input:
        study=f"{REPORT}/study.yaml",
        models=lattice_models,
        tokenizer=TOKENIZER,
        cuts=prepared("cuts.jsonl.gz", SCORED),
        features=prepared("features.lca", SCORED),
    output:
        f"{REPORT}/illustrations.npz",
    log:
        f"{REPORT}/illustrate.log",
    benchmark:
        f"{REPORT}/illustrate.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        corpus=corpus_folder,
        models=model_options,
    message:
        "Compute the lattice posteriors of {wildcards.study}, {wildcards.selection}"
    shell:
        "asr-distill illustrate {input.study:q} {output:q} {params.models:q} --corpus {params.corpus:q} "
        "--tokenizer {input.tokenizer:q} --threads {threads} --log {log:q}"


rule illustrate_knowledge:
    input:
        study=f"{REPORT}/study.yaml",
        bert=rules.bert.output,
        models=decoder_models,
        sampled=sampled,
        tokenizer=CTC_TOKENIZER,
        cuts=prepared("cuts.jsonl.gz", SCORED),
        features=prepared("features.lca", SCORED),
    output:
        f"{REPORT}/knowledge.npz",
    log:
        f"{REPORT}/knowledge.log",
    benchmark:
        f"{REPORT}/knowledge.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        corpus=corpus_folder,
        runs=study_folder,
        bert=bert_folder,
    message:
        "Ask BERT about a few sentences for {wildcards.study}, {wildcards.selection}"
    shell:
        "asr-distill knowledge {input.study:q} {params.runs:q} {output:q} --bert {params.bert:q} "
        "--corpus {params.corpus:q} --tokenizer {input.tokenizer:q} --threads {threads} --log {log:q}"


rule listen:
    input:
        study=f"{REPORT}/study.yaml",
        cuts=prepared("cuts.jsonl.gz", TESTED),
        references=prepared("references.jsonl", TESTED),
        heard=heard,
    output:
        f"{REPORT}/listening.json",
    log:
        f"{REPORT}/listening.log",
    benchmark:
        f"{REPORT}/listening.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        corpus=corpus_folder,
        runs=study_folder,
    message:
        "Choose utterances of {wildcards.study}, {wildcards.selection}, to listen to"
    shell:
        "asr-distill listen {input.study:q} {params.corpus:q} {params.runs:q} {output:q} --log {log:q}"


rule figures:
    input:
        study=f"{REPORT}/study.yaml",
        scores=f"{STUDY}/scores.csv",
        errors=f"{REPORT}/errors.csv",
        latency=emission_latency,
        summaries=summaries,
        illustrations=illustrations,
        knowledge=knowledge_of_figure,
    output:
        folder=report(
            directory(f"{STUDY}/figures"),
            patterns=["{figure}.svg"],
            caption="../report/figures.rst",
            category="{study}, {selection}",
            subcategory="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        f"{REPORT}/figures.log",
    benchmark:
        f"{REPORT}/figures.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        runs=study_folder,
        illustrations=illustrations_option,
        knowledge=knowledge_option,
        latency=latency_option,
    message:
        "Draw the figures of {wildcards.study}, {wildcards.selection}"
    shell:
        "asr-distill figures {input.study:q} {input.scores:q} {params.runs:q} {output.folder:q} {params.illustrations:q} "
        "{params.knowledge:q} {params.latency:q} --errors {input.errors:q} --log {log:q}"


rule times:
    input:
        study=f"{REPORT}/study.yaml",
        scores=f"{STUDY}/scores.csv",
        references=report_references,
        summaries=summaries,
        timings=timings,
        benchmarks=benchmarks,
    output:
        folder=report(
            directory(f"{STUDY}/times"),
            patterns=["{table}.csv"],
            caption="../report/times.rst",
            category="{study}, {selection}",
            subcategory="Times",
            labels={"table": "{table}"},
        ),
    log:
        f"{REPORT}/times.log",
    benchmark:
        f"{REPORT}/times.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        corpus=corpus_folder,
        runs=study_folder,
    message:
        "Collect times and memory of {wildcards.study}, {wildcards.selection}"
    shell:
        "asr-distill times {input.study:q} {params.corpus:q} {params.runs:q} {output.folder:q} --scores {input.scores:q} "
        "--log {log:q}"


rule provenance:
    input:
        study=f"{REPORT}/study.yaml",
        records=report_records,
        summaries=summaries,
        results=[
            f"{STUDY}/tables",
            f"{STUDY}/claims.csv",
            f"{STUDY}/figures",
            f"{STUDY}/times",
        ],
    output:
        report(
            f"{STUDY}/provenance.json",
            caption="../report/provenance.rst",
            category="{study}, {selection}",
        ),
    log:
        f"{REPORT}/provenance.log",
    benchmark:
        f"{REPORT}/provenance.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        records=record_options,
        runs=study_folder,
        work=work_folder,
        root=workflow.basedir,
    message:
        "Write down where the results of {wildcards.study}, {wildcards.selection}, come from"
    shell:
        "asr-distill provenance {input.study:q} {params.runs:q} {output:q} {params.records:q} "
        "--work {params.work:q} --root {params.root:q} --log {log:q}"


rule quarantine:
    input:
        report_quarantine,
    output:
        report(
            f"{STUDY}/quarantine.csv",
            caption="../report/quarantine.rst",
            category="{study}, {selection}",
        ),
    log:
        f"{REPORT}/quarantine.log",
    benchmark:
        f"{REPORT}/quarantine.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    message:
        "Keep the list of utterances that were left out"
    shell:
        "cp {input:q} {output:q} 2> {log:q}"


rule report:
    input:
        study=f"{REPORT}/study.yaml",
        overview=report_overview,
        costs=costs,
        results=rules.provenance.input.results,
        provenance=f"{STUDY}/provenance.json",
        knowledge=knowledge_of_samples,
        sampled=sampled,
        language_models=language_models,
        latency=emission_latency,
        listening=listening,
    output:
        report(
            f"{STUDY}/report.html",
            caption="../report/report.rst",
            category="{study}, {selection}",
        ),
    log:
        f"{REPORT}/report.log",
    benchmark:
        f"{REPORT}/report.tsv"
    conda:
        "../../envs/asr-distill.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        runs=study_folder,
        results=results_folder,
        samples=samples_options,
        language_models=language_models_option,
        latency=latency_option,
        listening=listening_option,
    message:
        "Write the report of {wildcards.study}, {wildcards.selection}"
    shell:
        "asr-distill report {input.study:q} {params.results:q} {params.runs:q} {input.overview:q} "
        "{params.samples:q} {params.language_models:q} {params.latency:q} {params.listening:q} --log {log:q}"
