/* tests/flux/write-report.c: reports of a made-up run, for
 * tests/reference/check_{reports,wandb}.py. write-report FOLDER [STEPS].
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <stdlib.h>

#include "flux/report/report.h"

int
main (int argc, char **argv)
{
  static const FluxReportSetting settings[] = {
      {"rank", NULL, 4}, {"model", "tiny", 0}, {"learning-rate", NULL, 1e-4}};
  guint8 rgb[8 * 16 * 3];
  FluxReportPicture picture = {2, "a red fox", rgb, 16, 8, 48};
  FluxReportConfig config = {0};
  GError *error = NULL;
  guint64 n = 4;
  FluxReport *report;

  if (argc < 2)
    return 2;
  if (argc > 2)
    n = (guint64)atoi (argv[2]);
  for (guint i = 0; i < sizeof rgb; i++)
    rgb[i] = (guint8)(i * 5);
  config.to = FLUX_REPORT_JSONL | FLUX_REPORT_TENSORBOARD | FLUX_REPORT_WANDB;
  config.folder = argv[1];
  config.name = "fox";
  config.settings = settings;
  config.n_settings = G_N_ELEMENTS (settings);
  report = flux_report_new (&config, &error);
  if (report == NULL || !flux_report_paired_loss (report, 0, 0.75, &error)) {
    fprintf (stderr, "%s\n", error->message);
    return 1;
  }
  for (guint64 i = 1; i <= n; i++) {
    FluxReportStep s = {i, n, 0, 1.0 / (double)i, 1e-4, 0.5, 0.25, 2, 64, 3u << 29};

    flux_report_step (report, &s, NULL);
    if (i == 2)
      flux_report_picture (report, &picture, NULL);
  }
  flux_report_paired_loss (report, n, 0.5, NULL);
  printf ("%s\n%s\n%s\n", flux_report_get_location (report, FLUX_REPORT_JSONL),
      flux_report_get_location (report, FLUX_REPORT_TENSORBOARD),
      flux_report_get_location (report, FLUX_REPORT_WANDB));
  flux_report_free (report, TRUE);
  return 0;
}
