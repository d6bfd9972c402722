use std::time::Instant;

use opentelemetry::metrics::{AsyncInstrument, Meter};

/// Metrics of this process, under the Collector's names.
pub(super) fn observe(meter: &Meter) {
    let began = Instant::now();
    let uptime = move |observer: &dyn AsyncInstrument<f64>| observer.observe(began.elapsed().as_secs_f64(), &[]);
    meter.f64_observable_counter("otelcol_process_uptime").with_unit("s").with_callback(uptime).build();
    #[cfg(target_os = "linux")]
    {
        let cpu = |observer: &dyn AsyncInstrument<f64>| {
            if let Ok(stat) = procfs::process::Process::myself().and_then(|myself| myself.stat()) {
                observer.observe((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64, &[]);
            }
        };
        meter.f64_observable_counter("otelcol_process_cpu_seconds").with_unit("s").with_callback(cpu).build();
        let rss = |observer: &dyn AsyncInstrument<u64>| {
            if let Ok(stat) = procfs::process::Process::myself().and_then(|myself| myself.stat()) {
                observer.observe(stat.rss * procfs::page_size(), &[]);
            }
        };
        meter.u64_observable_gauge("otelcol_process_memory_rss").with_unit("By").with_callback(rss).build();
    }
}
