/* flux/report/http-none.c: a build without libsoup. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/report/report-private.h"

FluxReporter *
flux_report_http_new (const FluxReportRun *run, GError **error)
{
  g_set_error (error, FLUX_ERROR, FLUX_ERROR_SETTINGS,
      "This build cannot serve the training's page: build it with libsoup 3, or leave "
      "http out of report-to.");
  return NULL;
}
