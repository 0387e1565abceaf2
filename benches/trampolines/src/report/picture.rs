// SPDX-License-Identifier: GPL-2.0

//! The picture: for each way, what a call costs and what making one costs.

use std::path::Path;

use plotters::prelude::*;

use crate::data::Run;
use crate::tables::number;

/// The file.
pub const NAME: &str = "trampolines.svg";

const SIZE: (u32, u32) = (960, 880);
const LABELS: u32 = 190;

/// Draws it.
pub fn draw(run: &Run, path: &Path) -> Result<(), String> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    let halves = area.split_evenly((2, 1));
    let [calls, makings] = halves.as_slice() else {
        return Err("no two halves".to_owned());
    };
    let times = |kind: &str| -> Vec<(String, f64)> {
        let all = run.ways.iter().rev();
        all.filter_map(|way| Some((way.clone(), run.median(way, kind)?)))
            .collect()
    };
    panel(
        calls,
        "a call, warm: ns, median, target and loop included",
        &times("warm"),
    )?;
    panel(makings, "making one: ns, median", &times("make"))?;
    area.present().map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> String {
    format!("the picture: {error}")
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn panel(area: &Area<'_>, title: &str, bars: &[(String, f64)]) -> Result<(), String> {
    let most = bars.iter().map(|(_, value)| *value).fold(10.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(LABELS)
        .build_cartesian_2d((1.0..most * 6.0).log_scale(), 0.0..bars.len() as f64)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_label_formatter(&|value| number(Some(*value)))
        .label_style(("sans-serif", 13))
        .draw()
        .map_err(failed)?;
    for (index, (name, value)) in bars.iter().enumerate() {
        let low = index as f64 + 0.2;
        let colour = match name.starts_with("jitfd") {
            true => RGBColor(0x1b, 0x7f, 0x4b),
            false => RGBColor(0x8a, 0x93, 0x9c),
        };
        let bar = Rectangle::new([(1.0, low), (*value, low + 0.6)], colour.filled());
        let text = Text::new(
            format!(" {}", number(Some(*value))),
            (*value, low + 0.5),
            ("sans-serif", 13),
        );
        chart.draw_series([bar]).map_err(failed)?;
        chart.draw_series([text]).map_err(failed)?;
        let (_, y) = chart.backend_coord(&(1.0, low + 0.5));
        let base = area.get_base_pixel();
        let at = (16, y - base.1);
        area.draw(&Text::new(name.clone(), at, ("sans-serif", 13)))
            .map_err(failed)?;
    }
    Ok(())
}
