/* flux/report/report.h: where a training tells how it goes. SPDX-License-Identifier:
 * LGPL-2.1-or-later
 *
 * Several formats get the same events. A format that fails (a full disk) ends there and
 * the others go on: each function below then is FALSE once, with a message for each such
 * format, and the caller is expected to say it and to go on training. All functions but
 * new and free may be called from any thread. */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef enum {
  FLUX_REPORT_JSONL = 1 << 0,       /* a line of JSON a step */
  FLUX_REPORT_TENSORBOARD = 1 << 1, /* an event file */
  FLUX_REPORT_WANDB = 1 << 2,       /* a folder that `wandb sync` uploads */
  FLUX_REPORT_HTTP = 1 << 3,        /* a page that is served while the training runs */
} FluxReportTo;

typedef struct {
  const char *name;
  const char *text; /* NULL: it is a number */
  double number;
} FluxReportSetting;

/* The buttons of the page. */
typedef enum {
  FLUX_REPORT_PAUSE,
  FLUX_REPORT_RESUME,
  FLUX_REPORT_SAVE, /* a checkpoint now */
  FLUX_REPORT_STOP, /* save, and come to the end */
} FluxReportCommand;

/* From the page's thread: it must not wait for anything. */
typedef void (*FluxReportCommandFunc) (FluxReportCommand command, gpointer data);

/* FLUX_REPORT_HTTP's. Whoever reaches the address may look and press the buttons, unless
 * there is a token: then only those who know it, by the address with ?token=..., a cookie
 * that this sets, or Authorization: Bearer. */
typedef struct {
  const char *address; /* an IP address, or localhost */
  guint port;          /* 0: any that is free */
  /* Of 16 or more of the characters A-Z a-z 0-9 - _; NULL: a random one, and none where
   * the address is the loopback's. */
  const char *token;
  FluxReportCommandFunc command;
  gpointer data;
} FluxReportHttp;

typedef struct {
  FluxReportTo to;
  const char *folder; /* made when absent */
  const char *name;   /* of what is trained, for people; NULL: none */
  const FluxReportSetting *settings;
  guint n_settings;
  FluxReportHttp http;
} FluxReportConfig;

typedef struct {
  guint64 step, max_steps;
  guint epoch;
  double loss, learning_rate, grad_norm;
  double seconds; /* of this step */
  guint images;
  guint64 tokens; /* of text and image */
  guint64 memory; /* bytes the process has in main memory; 0: not known */
} FluxReportStep;

typedef struct {
  guint64 step;
  const char *prompt;
  const guint8 *rgb; /* [height, stride] */
  guint width, height, stride;
} FluxReportPicture;

/* The picture as a PNG file. */
GBytes *flux_report_png (const FluxReportPicture *picture, GError **error);

typedef struct _FluxReport FluxReport;

/* Opens everything; NULL when one of them cannot be opened. */
FluxReport *flux_report_new (const FluxReportConfig *config, GError **error);
/* finished: the training came to its end, and was not broken off. NULL is ignored. */
void flux_report_free (FluxReport *self, gboolean finished);
/* Where that format writes; NULL: not asked for. The page's has no token in it. */
const char *flux_report_get_location (FluxReport *self, FluxReportTo which);
/* The page's token, which is for the one who trains and for no log; NULL: none. */
const char *flux_report_get_token (FluxReport *self);

gboolean flux_report_step (FluxReport *self, const FluxReportStep *step, GError **error);
/* The loss over fixed triples, see flux/train/meter.h. */
gboolean
flux_report_paired_loss (FluxReport *self, guint64 step, double loss, GError **error);
gboolean
flux_report_picture (FluxReport *self, const FluxReportPicture *picture, GError **error);

#define FLUX_REPORT_PAUSED "paused"
/* What the training does now, in a word: opening, training, paused, finished, ... */
void flux_report_state (FluxReport *self, const char *state);
/* Step `step` is on disk. */
void flux_report_saved (FluxReport *self, guint64 step);

G_END_DECLS
