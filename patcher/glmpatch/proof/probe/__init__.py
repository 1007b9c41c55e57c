"""The probe: runs in the interpreter that owns vLLM, measures, and writes one JSON report.

It imports the standard library, torch, transformers and vLLM only, and runs on Python 3.9 and
newer. vLLM is imported for real. The probe looks at numbers and never at the source of a model.
"""
