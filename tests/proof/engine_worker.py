"""Asks vLLM's whole engine again and again: one start for a file, other weights each time.

``python engine_worker.py run REQUEST.json``, run by the interpreter that owns vLLM. It is the
probe's own engine way in all but this: an engine that has answered is handed the weights of the
next question by the model's own ``load_weights``, where the probe would start another one; and what
it answers is judged, and written down, while it is asked on. Starting is nearly all of the time.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
EVERY = 0.2
"""Seconds after which the engine's answers are looked for again."""


def main(part: str, path: str) -> None:
    with open(path, encoding="utf-8") as stream:
        content = json.load(stream)
    load = runpy.run_path(content["probe"])["load"]
    if part == "serve":
        serve = load("serve")
        serve.generate = asking_all(serve.generate)
        serve.import_vllm = and_the_processor(serve.import_vllm)
        serve.main(path)
    else:
        Run(load("engine"), content).run()


def and_the_processor(import_vllm: Any) -> Any:
    """``import_vllm`` of the probe, and what the compiler wants to know of the processor: else
    each fork would find it out anew, in processes that import torch, one after another."""

    def import_and_look(order: Any) -> None:
        import_vllm(order)
        if any(task["mode"] == "compiled" for task in order["tasks"]):
            from torch._inductor import cpu_vec_isa

            cpu_vec_isa.valid_vec_isa_list()

    return import_and_look


def asking_all(generate: Any) -> Any:
    """``generate`` of the probe, for every question of a task: seeds, and weights gone wrong."""
    outcome: Any = sys.modules["glmpatch_probe.outcome"]
    alter = runpy.run_path(os.path.join(HERE, "worker.py"))["alter"]

    def generate_all(order: Any, task: Any, llm: Any) -> Any:
        with open(os.path.join(order["folder"], "questions"), "a", encoding="utf-8") as out:
            for number, question in enumerate(task["questions"]):
                try:
                    give_weights(llm, question["checkpoint"], alter, question["weights"])
                except Exception as error:  # ours, and no file's
                    raise outcome.CannotRun(repr(error), "mend engine_worker.py") from error
                answer = {"file": question["name"], "crash": None}
                try:
                    answer.update(generate(order, {**task, "prompts": question["prompts"]}, llm))
                except Exception as error:
                    answer["crash"] = outcome.describe(error)
                    forget(llm)
                line = {"task": task["number"], "question": number, "answer": answer}
                out.write(json.dumps(line) + "\n")
                out.flush()
        return {}

    return generate_all


def give_weights(llm: Any, folder: str, alter: Any, changes: Any) -> None:
    """Load a checkpoint into the model that is there; nothing of the one before is left."""
    from safetensors.torch import load_file

    weights = list(alter(load_file(os.path.join(folder, "model.safetensors")), changes))

    def load(model: Any) -> None:
        loaded = model.load_weights(weights)
        missing = {name for name, _ in model.named_parameters()} - set(loaded)
        assert not missing, missing

    llm.apply_model(load)


def forget(llm: Any) -> None:
    """Take back what was asked when the model ended in an error."""
    engine = llm.llm_engine
    for scheduler in engine.scheduler:
        groups = [*scheduler.waiting, *scheduler.running, *scheduler.swapped]
        engine.abort_request([group.request_id for group in groups])


class Run:
    """All tasks of a request: each a file in a mode and a precision, with its questions."""

    def __init__(self, engine: Any, request: Any) -> None:
        self.engine = engine
        self.processes: Any = sys.modules["glmpatch_probe.processes"]
        self.choose: Any = sys.modules["glmpatch_probe.choose"]
        self.request = request
        seeds = {q["seed"] for task in request["tasks"] for q in task["questions"]}
        files = {task["file"]["id"]: task["file"] for task in request["tasks"]}
        proofs = [
            {**request["proof"], "id": str(seed), "seed": seed, "files": list(files.values())}
            for seed in sorted(seeds)
        ]
        probe = {**request["asked"], "proofs": proofs}
        self.models = engine.Models(probe, "cpu", lambda text: None)

    def run(self) -> None:
        self.processes._run = self.serve_and_judge
        tasks = [self.task(number, each) for number, each in enumerate(self.request["tasks"])]
        with open(self.request["out"], "a", encoding="utf-8") as self.out:
            answers = self.processes.ask(self.request["asked"], "cpu", tasks)
            for task, answer in zip(tasks, answers):
                # One that does not start has crashed, whatever the weights: it is asked once.
                if answer["crash"]:
                    self.write(task, task["questions"][0], answer)
        sys.stdout.flush()
        os._exit(0)

    def task(self, number: int, asked: Any) -> Any:
        """What the probe would ask of the first seed, and beside it all questions."""
        questions = []
        for question in asked["questions"]:
            run = self.choose.Run(
                *(str(question["seed"]), asked["file"]["id"], "V0"),
                *(asked["precision"], asked["mode"]),
            )
            (task,) = self.models.tasks(run)
            kept = {name: task[name] for name in ("checkpoint", "prompts", "proof")}
            questions.append({**question, **kept})
        return {**task, **questions[0], "number": number, "questions": questions}

    def serve_and_judge(self, part: str, order: Any, environment: Any) -> int:
        """In place of the probe's own: the same process, its answers judged as they come."""
        with open(order["order"], encoding="utf-8") as stream:
            content = {**json.load(stream), "probe": self.request["probe"]}
        with open(order["order"], "w", encoding="utf-8") as stream:
            json.dump(content, stream)
        questions = os.path.join(order["folder"], "questions")
        open(questions, "w", encoding="utf-8").close()
        tasks = {task["number"]: task for task in order["tasks"]}
        with open(order["log"], "wb") as log, open(questions, encoding="utf-8") as found:
            process = subprocess.Popen(
                [sys.executable, "-B", "-s", os.path.abspath(__file__), part, order["order"]],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=order["folder"],
                env=environment,
                start_new_session=True,
            )
            try:
                self.judge_until_end(process, found, tasks)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        return process.wait()

    def judge_until_end(self, process: Any, found: Any, tasks: Any) -> None:
        begun = ""
        while True:
            ended = process.poll() is not None
            for line in found:
                begun += line
                if begun.endswith("\n"):
                    self.judge(tasks, json.loads(begun))
                    begun = ""
            if ended:
                return
            time.sleep(EVERY)

    def judge(self, tasks: Any, line: Any) -> None:
        task = tasks[line["task"]]
        self.write(task, task["questions"][line["question"]], line["answer"])

    def write(self, task: Any, question: Any, answer: Any) -> None:
        """One line: what the probe would report, without what is long."""
        asked = {**task, "proof": question["proof"]}
        found = self.engine.judged(*self.models.of(asked), answer)
        for long in ("series", "noise_series"):
            found[long] = []
        if found["crash"]:
            found["crash"]["traceback"] = ""
        kept = {name: task[name] for name in ("precision", "mode", "engine")}
        about = {"seed": question["seed"], "file": question["name"], "rounding": task["mode"]}
        line = {**kept, **found, **about}
        self.out.write(json.dumps({**line, "proof": "calibration"}) + "\n")
        self.out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:3])
