/* flux/report/report.c: hands events to the formats. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/report/report.h"

#include <math.h>
#include <string.h>

#include "flux/report/report-private.h"

struct _FluxReport {
  GMutex lock;
  GPtrArray *reporters; /* FluxReporter */
  char *locations[4];
  const char *token;
};

/* ---- JSON ---- */

/* json-glib up to 1.6 adds ".0" to what has no point, and makes 1e-08.0 of 1e-08, which
 * is no JSON: then the number beside it, which has one. */
static double
with_point (double value)
{
  char text[G_ASCII_DTOSTR_BUF_SIZE];

  g_ascii_dtostr (text, sizeof text, value);
  return strchr (text, 'e') != NULL && strchr (text, '.') == NULL ? nextafter (value, 0)
                                                                  : value;
}

void
flux_report_json_number (JsonBuilder *to, const char *name, double value)
{
  if (name != NULL)
    json_builder_set_member_name (to, name);
  if (isfinite (value))
    json_builder_add_double_value (to, with_point (value));
  else
    json_builder_add_null_value (to);
}

void
flux_report_json_integer (JsonBuilder *to, const char *name, guint64 value)
{
  json_builder_set_member_name (to, name);
  json_builder_add_int_value (to, (gint64)MIN (value, G_MAXINT64));
}

void
flux_report_json_step (JsonBuilder *to, const FluxReportStep *s)
{
  flux_report_json_integer (to, "step", s->step);
  flux_report_json_integer (to, "max_steps", s->max_steps);
  flux_report_json_integer (to, "epoch", s->epoch);
  flux_report_json_number (to, "loss", s->loss);
  flux_report_json_number (to, "learning_rate", s->learning_rate);
  flux_report_json_number (to, "grad_norm", s->grad_norm);
  flux_report_json_number (to, "seconds", s->seconds);
  if (s->seconds > 0) {
    flux_report_json_number (to, "images_per_second", s->images / s->seconds);
    flux_report_json_number (to, "tokens_per_second", (double)s->tokens / s->seconds);
  }
  if (s->memory > 0)
    flux_report_json_integer (to, "memory_bytes", s->memory);
}

/* ---- scalars ---- */

guint
flux_report_scalars (
    const FluxReportStep *s, FluxReportScalar scalars[FLUX_REPORT_N_SCALARS])
{
  guint n = 0;

  scalars[n++] = (FluxReportScalar){"train/loss", s->loss};
  scalars[n++] = (FluxReportScalar){"train/learning_rate", s->learning_rate};
  scalars[n++] = (FluxReportScalar){"train/grad_norm", s->grad_norm};
  scalars[n++] = (FluxReportScalar){"train/epoch", s->epoch};
  scalars[n++] = (FluxReportScalar){"speed/seconds_per_step", s->seconds};
  if (s->seconds > 0) {
    scalars[n++] = (FluxReportScalar){"speed/images_per_second", s->images / s->seconds};
    scalars[n++] =
        (FluxReportScalar){"speed/tokens_per_second", (double)s->tokens / s->seconds};
  }
  if (s->memory > 0)
    scalars[n++] = (FluxReportScalar){"memory/gib", (double)s->memory / (1 << 30)};
  return n;
}

char *
flux_report_json_end (JsonBuilder *builder, gsize *length)
{
  JsonNode *root = json_builder_get_root (builder);
  JsonGenerator *generator = json_generator_new ();
  char *text;

  json_generator_set_root (generator, root);
  text = json_generator_to_data (generator, length);
  g_object_unref (generator);
  json_node_unref (root);
  g_object_unref (builder);
  return text;
}

/* ---- beginning and end ---- */

static void
reporter_free (FluxReporter *self, gboolean finished)
{
  self->free (self, finished);
  g_free (self->location);
  g_free (self);
}

static char *
make_id (void)
{
  static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
  char id[9] = {0};

  for (guint i = 0; i < 8; i++)
    id[i] = letters[g_random_int_range (0, sizeof letters - 1)];
  return g_strdup (id);
}

FluxReport *
flux_report_new (const FluxReportConfig *config, GError **error)
{
  static FluxReporter *(*const make[]) (const FluxReportRun *, GError **) = {
      flux_report_jsonl_new, flux_report_tensorboard_new, flux_report_wandb_new,
      flux_report_http_new};
  FluxReport *self = g_new0 (FluxReport, 1);
  g_autoptr (GDateTime) now = g_date_time_new_now_local ();
  g_autofree char *stamp = g_date_time_format (now, "%Y%m%d_%H%M%S");
  g_autofree char *id = make_id ();
  g_autofree char *run_name = g_strdup_printf ("%s-%s", stamp, id);
  FluxReportRun run = {config, run_name, id};

  g_mutex_init (&self->lock);
  self->reporters = g_ptr_array_new ();
  for (guint i = 0; i < G_N_ELEMENTS (make); i++) {
    FluxReporter *r;

    if (((guint)config->to & 1u << i) == 0)
      continue;
    r = make[i](&run, error);
    if (r == NULL) {
      flux_report_free (self, FALSE);
      return NULL;
    }
    r->which = (FluxReportTo)(1u << i);
    self->locations[i] = g_strdup (r->location);
    if (r->token != NULL)
      self->token = r->token;
    g_ptr_array_add (self->reporters, r);
  }
  return self;
}

void
flux_report_free (FluxReport *self, gboolean finished)
{
  if (self == NULL)
    return;
  for (guint i = 0; i < self->reporters->len; i++)
    reporter_free (g_ptr_array_index (self->reporters, i), finished);
  g_ptr_array_unref (self->reporters);
  for (guint i = 0; i < G_N_ELEMENTS (self->locations); i++)
    g_free (self->locations[i]);
  g_mutex_clear (&self->lock);
  g_free (self);
}

const char *
flux_report_get_location (FluxReport *self, FluxReportTo which)
{
  for (guint i = 0; i < G_N_ELEMENTS (self->locations); i++)
    if ((guint)which == 1u << i)
      return self->locations[i];
  return NULL;
}

const char *
flux_report_get_token (FluxReport *self)
{
  return self->token;
}

/* ---- events ---- */

/* Reporter i failed: it is gone, and its message joins those of others. Takes failure. */
static void
drop (FluxReport *self, guint i, GError *failure, GError **error)
{
  if (error == NULL) {
    g_error_free (failure);
  } else if (*error == NULL) {
    g_propagate_error (error, failure);
  } else {
    char *both = g_strdup_printf ("%s %s", (*error)->message, failure->message);

    g_free ((*error)->message);
    (*error)->message = both;
    g_error_free (failure);
  }
  reporter_free (g_ptr_array_index (self->reporters, i), FALSE);
  g_ptr_array_remove_index (self->reporters, i);
}

/* What happened, in the words of one of the functions of FluxReporter. */
typedef gboolean (*Tell) (FluxReporter *to, gconstpointer event, GError **error);

static gboolean
tell_all (FluxReport *self, Tell tell, gconstpointer event, GError **error)
{
  gboolean ok = TRUE;

  g_mutex_lock (&self->lock);
  for (guint i = self->reporters->len; i-- > 0;) {
    GError *failure = NULL;

    if (tell (g_ptr_array_index (self->reporters, i), event, &failure))
      continue;
    drop (self, i, failure, error);
    ok = FALSE;
  }
  g_mutex_unlock (&self->lock);
  return ok;
}

static gboolean
tell_step (FluxReporter *to, gconstpointer step, GError **error)
{
  return to->step (to, step, error);
}

gboolean
flux_report_step (FluxReport *self, const FluxReportStep *step, GError **error)
{
  return tell_all (self, tell_step, step, error);
}

typedef struct {
  guint64 step;
  double loss;
} PairedLoss;

static gboolean
tell_paired_loss (FluxReporter *to, gconstpointer event, GError **error)
{
  const PairedLoss *paired = event;

  return to->paired_loss (to, paired->step, paired->loss, error);
}

gboolean
flux_report_paired_loss (FluxReport *self, guint64 step, double loss, GError **error)
{
  const PairedLoss paired = {step, loss};

  return tell_all (self, tell_paired_loss, &paired, error);
}

static gboolean
tell_image (FluxReporter *to, gconstpointer image, GError **error)
{
  return to->image == NULL || to->image (to, image, error);
}

gboolean
flux_report_picture (FluxReport *self, const FluxReportPicture *picture, GError **error)
{
  const FluxReportImage image = {picture, flux_report_png (picture, error)};
  gboolean ok;

  if (image.png == NULL)
    return FALSE;
  ok = tell_all (self, tell_image, &image, error);
  g_bytes_unref (image.png);
  return ok;
}

static gboolean
tell_state (FluxReporter *to, gconstpointer state, GError **error)
{
  if (to->state != NULL)
    to->state (to, state);
  return TRUE;
}

void
flux_report_state (FluxReport *self, const char *state)
{
  tell_all (self, tell_state, state, NULL);
}

static gboolean
tell_saved (FluxReporter *to, gconstpointer step, GError **error)
{
  if (to->saved != NULL)
    to->saved (to, *(const guint64 *)step);
  return TRUE;
}

void
flux_report_saved (FluxReport *self, guint64 step)
{
  tell_all (self, tell_saved, &step, NULL);
}
