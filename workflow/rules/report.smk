# From transcripts to tables, claims, figures and the report.


rule score:
    message:
        "Count word errors of {wildcards.study}"
    input:
        study=f"{WORK}/{{study}}/study.yaml",
        references=prepared("references.jsonl", SCORED),
        hypotheses=hypotheses,
    output:
        scores=f"{RESULTS}/{{study}}/scores.csv",
        errors=f"{WORK}/{{study}}/errors.csv",
    log:
        f"{WORK}/{{study}}/score.log",
    benchmark:
        f"{WORK}/{{study}}/score.tsv"
    params:
        corpus=CORPUS,
        runs=f"{WORK}/{{study}}",
    shell:
        "asr-distill score {input.study:q} {params.corpus:q} {params.runs:q} {output.scores:q} {output.errors:q} --log {log:q}"
