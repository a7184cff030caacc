/**
 * Counters, gauges and histograms, through OpenTelemetry's metrics API, shown in Prometheus text. Names end in their unit.
 * Every bound of the product has a metric that shows how near it is. Spans and propagation are not here yet.
 */
import type { Counter, Histogram, Meter } from "@opentelemetry/api";
import { PrometheusExporter, PrometheusSerializer } from "@opentelemetry/exporter-prometheus";
import { MeterProvider } from "@opentelemetry/sdk-metrics";

export type Labels = Readonly<Record<string, string>>;

export interface Metrics {
  /** Adds one to (or `amount`) `name`. */
  count(name: string, amount?: number, labels?: Labels): void;
  /** Notes how long something took, in seconds. */
  observe(name: string, seconds: number, labels?: Labels): void;
  /** Reads `value` whenever the metrics are shown. */
  gauge(name: string, value: () => number, labels?: Labels): void;
  /** Prometheus text format. */
  render(): Promise<string>;
}

const SECONDS_BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

class MeteredMetrics implements Metrics {
  readonly #meter: Meter;
  readonly #exporter = new PrometheusExporter({ preventServerStart: true });
  readonly #serializer = new PrometheusSerializer();
  readonly #counters = new Map<string, Counter>();
  readonly #histograms = new Map<string, Histogram>();

  constructor() {
    this.#meter = new MeterProvider({ readers: [this.#exporter] }).getMeter("holdfast");
  }

  count(name: string, amount = 1, labels: Labels = {}): void {
    let counter = this.#counters.get(name);
    if (counter === undefined) this.#counters.set(name, (counter = this.#meter.createCounter(name)));
    counter.add(amount, labels);
  }

  observe(name: string, seconds: number, labels: Labels = {}): void {
    let histogram = this.#histograms.get(name);
    if (histogram === undefined) {
      histogram = this.#meter.createHistogram(name, { advice: { explicitBucketBoundaries: SECONDS_BUCKETS } });
      this.#histograms.set(name, histogram);
    }
    histogram.record(seconds, labels);
  }

  gauge(name: string, value: () => number, labels: Labels = {}): void {
    this.#meter.createObservableGauge(name).addCallback((result) => result.observe(value(), labels));
  }

  async render(): Promise<string> {
    const { resourceMetrics } = await this.#exporter.collect();
    return this.#serializer.serialize(resourceMetrics);
  }
}

/** The metrics of this process. */
export function processMetrics(): Metrics {
  return new MeteredMetrics();
}

/** For tests and simulation: counts nothing. */
export const noMetrics: Metrics = {
  count() {},
  observe() {},
  gauge() {},
  render: () => Promise.resolve(""),
};
