"""The settings: a class for each section, with every default, check and description.

The defaults are in the code, so that a wheel or a py-files zip needs no file; `conf/base.yaml`
repeats them for people, and a test keeps both equal.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from bitstorm.core.time import duration_ms


def _duration(text: str) -> str:
    duration_ms(text)
    return text


Duration = Annotated[str, AfterValidator(_duration)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Source(_Section):
    mode: Literal["simulated", "coingecko", "csv"] = Field(
        "simulated", description="where prices come from"
    )
    base_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s?#]+$",
        description="the API's root; empty: the plan's, or a built-in simulator",
    )
    coin: str = Field("bitcoin", pattern=r"^[a-z0-9-]+$", description="CoinGecko's id of the coin")
    vs_currency: str = Field("usd", pattern=r"^[a-z]+$", description="the currency of the prices")
    plan: Literal["keyless", "demo", "pro"] = Field(
        "keyless", description="the plan of the key in COINGECKO_API_KEY; keyless sends no key"
    )
    connect_timeout_seconds: float = Field(5.0, gt=0, description="to reach the server")
    read_timeout_seconds: float = Field(60.0, gt=0, description="between two parts of an answer")
    deadline_seconds: float = Field(
        300.0, gt=0, description="time for one request with all retries and waits"
    )
    retries: int = Field(5, ge=0, description="further tries after a passing fault")
    calls_per_minute: int | None = Field(
        None,
        ge=0,
        description="empty: keyless 5, demo 30, pro 250, a local host no limit; 0: no limit",
    )
    monthly_credits: int | None = Field(
        None,
        ge=0,
        description="calls per month (UTC); empty: demo 10000, pro 100000, else none; 0: no limit",
    )
    max_jump: float | None = Field(
        10.0, gt=1, description="largest factor to the prices around it; null: no bound"
    )


class Simulator(_Section):
    seed: int = Field(7, ge=0, description="the market: the same seed gives the same prices")
    port: int = Field(0, ge=0, le=65535, description="loopback port of `simulate`; 0: any free one")


class Backfill(_Section):
    days: int = Field(365, ge=1, description="days of history to fetch")
    slice_days: int = Field(90, ge=2, le=90, description="days a request; above 90 it is daily")
    confirm_hours: int = Field(24, ge=0, description="longest hole that two answers confirm")


class Import(_Section):
    daily_switch: Literal["move", "refuse", "keep"] = Field(
        "move", description="CoinGecko's daily stamps before 2018-01-30: they carry the day's end"
    )


class Ingest(_Section):
    settle_seconds: float = Field(10.0, ge=0, description="age of a complete CSV without a sidecar")
    lock_seconds: float = Field(
        60.0, ge=0, description="wait for another run that writes the data set"
    )
    future_seconds: float = Field(
        300.0, ge=0, description="a row's greatest time after the fetch of its batch"
    )
    rules: dict[str, Literal["refuse", "warn", "fail"]] = Field(
        default={}, description="rule: refuse the row (default), warn and keep it, or fail the run"
    )
    max_jump: float | None = Field(
        None, gt=1, description="price_jump: largest factor to the rows around it; null: off"
    )


class Grid(_Section):
    frequency: Duration = Field("1h", description="step of the regular grid")
    max_gap: int = Field(
        6, ge=0, description="steps carried forward; a longer hole cuts the series"
    )


class Indicators(_Section):
    windows: list[Annotated[int, Field(ge=2)]] = Field(
        default=[7, 24, 168], min_length=1, description="window lengths in steps, ascending"
    )


class Training(_Section):
    look_back: int = Field(60, ge=1, description="steps that the network sees")
    horizon: int = Field(1, ge=1, description="steps ahead that it predicts, directly")
    target: Literal["log_return", "price"] = Field(
        "log_return", description="learnt value; price is min-max scaled, for comparison"
    )
    features: list[str] = Field(
        default=[], description="columns of the indicators; empty: the target's own series"
    )
    train_share: float = Field(0.70, gt=0, lt=1, description="oldest part of the time span")
    validation_share: float = Field(0.15, gt=0, lt=1, description="the part after it")
    epochs: int = Field(30, ge=1, description="at most; early stopping can end earlier")
    patience: int = Field(5, ge=1, description="epochs without a better validation loss")
    batch_size: int | Literal["auto"] = Field("auto", description="windows per step; auto: 256")
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto", description="of Adam; auto: 0.001 at batch 32, times sqrt(batch / 32)"
    )
    units: int = Field(50, ge=1, description="cells of each LSTM layer")
    dropout: float = Field(0.2, ge=0, lt=1, description="after each LSTM layer")
    seed: int = Field(42, ge=0, lt=2**32, description="of weights, dropout and shuffling")
    backend: Literal["tensorflow", "torch"] = Field(
        "tensorflow", description="library that trains the network; torch needs bitstorm[torch]"
    )
    workers: int = Field(1, ge=1, description="Spark tasks that share each step of a training")


class Forecast(_Section):
    steps: int = Field(24, ge=1, le=168, description="steps ahead to forecast: 1 to this one")
    level: float = Field(0.8, gt=0, lt=1, description="share of outcomes inside the interval")
    fee: float = Field(
        10.0, ge=0, description="cost of a trade in basis points; a forecast must earn more"
    )


class Backtest(_Section):
    folds: int = Field(5, ge=1, le=100, description="test parts, one after the other in time")
    scheme: Literal["expanding", "sliding"] = Field(
        "expanding", description="train on all that is past, or on a span of one length"
    )
    test_share: float = Field(
        0.5, gt=0, lt=1, description="newest part of the time span, cut into the folds"
    )
    embargo: int | None = Field(
        None,
        ge=0,
        description="steps between training and test; empty: training.look_back + forecast.steps",
    )
    baselines: list[str] = Field(
        default=[], description="compared with the network; empty: all that need no extra"
    )
    volatility: bool = Field(
        True, description="judge volatility, whole distributions and GARCH, too"
    )
    in_process: bool = Field(
        False, description="fold after fold in the command's process, not as Spark tasks"
    )


class Tune(_Section):
    trials: int = Field(20, ge=1, le=10_000, description="trainings; the first has the settings")
    epochs: int = Field(10, ge=1, description="of a trial, at most; training.patience holds, too")
    seed: int = Field(42, ge=0, lt=2**31, description="of the search; trials use training.seed")


class Spark(_Section):
    master: str = Field(
        "local[*,4]",
        min_length=1,
        description="ignored under spark-submit; local[N,F]: N threads, F tries a task",
    )
    driver_memory: str = Field(
        "2g", pattern=r"^\d+[kmgKMG]$", description="of the JVM, when Bitstorm starts it"
    )
    conf: dict[str, str | int | float | bool] = Field(
        default={}, description="further Spark settings; spark-submit's own win"
    )


class Store(_Section):
    url: str | None = Field(
        None,
        description="data sets in s3://BUCKET/FOLDER or abfs://…; empty: in the workspace's folder",
    )


class Settings(_Section):
    """All sections. Frozen: a command has one set of settings from start to end."""

    model_config = ConfigDict(serialize_by_alias=True)

    source: Source = Source()
    simulator: Simulator = Simulator()
    backfill: Backfill = Backfill()
    # `import` is a keyword of Python; outside the code it is the section's name.
    import_: Import = Field(default=Import(), alias="import")
    ingest: Ingest = Ingest()
    grid: Grid = Grid()
    indicators: Indicators = Indicators()
    training: Training = Training()
    forecast: Forecast = Forecast()
    backtest: Backtest = Backtest()
    tune: Tune = Tune()
    spark: Spark = Spark()
    store: Store = Store()
