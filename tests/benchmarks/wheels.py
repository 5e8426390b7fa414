"""The wheels that `make gpu` needs on a machine with torch and its like: `python wheels.py` prints them with their versions.

The versions are those of this environment, so that the pair of pydantic and pydantic-core fits.
"""

from importlib.metadata import version

THERE = (
    "torch",
    "timm",
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
    "scikit-learn",
    "safetensors",
    "rich",
    "click",
    "PyYAML",
)
SMALL = (
    *("annotated-types", "donfig", "google-crc32c", "lightning-fabric", "lightning-utilities", "numcodecs"),
    *("pydantic", "pydantic-core", "typing-inspection", "zarr"),
)

if __name__ == "__main__":
    print(*(f"{name}=={version(name)}" for name in SMALL))
