/* flux/report/live.c: what the page shows of a training. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#include "flux/report/live.h"

#include <string.h>

enum { MAX_PROMPT = 500 }; /* bytes */

/* A number of steps. */
typedef struct {
  guint64 step; /* the last one */
  guint64 n;
  double loss; /* the mean */
  double learning_rate;
} Point;

typedef struct {
  guint64 step;
  double loss;
} Paired;

typedef struct {
  guint64 id, step;
  guint width, height;
  char *prompt;
  GBytes *png;
} Picture;

/* What get_json() copies before it writes text. */
typedef struct {
  FluxReportStep step;
  guint64 stride, saved_step;
  gint64 seconds_left; /* -1: not known */
  const char *state;
  guint n_points, n_paired;
  Point points[FLUX_LIVE_POINTS];
  Paired paired[FLUX_LIVE_PAIRED];
} Numbers;

struct _FluxLive {
  GMutex lock;
  GBytes *settings;
  Numbers numbers;
  gint64 last_time, rest_since; /* microseconds; 0: none yet, does not rest */
  double active;                /* seconds between the steps that were told */
  guint64 n_active;
  GQueue pictures; /* Picture, the oldest first */
  gsize picture_bytes;
  guint64 next_id;
};

static void
picture_free (gpointer data)
{
  Picture *p = data;

  g_free (p->prompt);
  g_bytes_unref (p->png);
  g_free (p);
}

static GBytes *
end_json (JsonBuilder *b)
{
  gsize length;
  char *text;

  json_builder_end_object (b);
  text = flux_report_json_end (b, &length);
  return g_bytes_new_take (text, length);
}

static GBytes *
settings_json (const FluxReportConfig *config)
{
  JsonBuilder *b = json_builder_new ();

  json_builder_begin_object (b);
  for (guint i = 0; i < config->n_settings; i++) {
    const FluxReportSetting *s = &config->settings[i];

    if (s->text == NULL) {
      flux_report_json_number (b, s->name, s->number);
    } else {
      json_builder_set_member_name (b, s->name);
      json_builder_add_string_value (b, s->text);
    }
  }
  return end_json (b);
}

FluxLive *
flux_live_new (const FluxReportRun *run)
{
  FluxLive *self = g_new0 (FluxLive, 1);

  g_mutex_init (&self->lock);
  g_queue_init (&self->pictures);
  self->settings = settings_json (run->config);
  self->numbers.stride = 1;
  self->numbers.seconds_left = -1;
  self->numbers.state = g_intern_string ("idle");
  return self;
}

void
flux_live_free (FluxLive *self)
{
  g_queue_clear_full (&self->pictures, picture_free);
  g_bytes_unref (self->settings);
  g_mutex_clear (&self->lock);
  g_free (self);
}

/* ---- events ---- */

static void
merge (Point *into, const Point *p)
{
  double n = (double)(into->n + p->n);

  into->loss += (p->loss - into->loss) * (double)p->n / n;
  into->n += p->n;
  into->step = p->step;
  into->learning_rate = p->learning_rate;
}

static void
add_point (Numbers *to, const Point *p)
{
  if (to->n_points > 0 && to->points[to->n_points - 1].n < to->stride) {
    merge (&to->points[to->n_points - 1], p);
    return;
  }
  if (to->n_points == FLUX_LIVE_POINTS) {
    for (guint i = 0; i < FLUX_LIVE_POINTS / 2; i++) {
      to->points[i] = to->points[2 * i];
      merge (&to->points[i], &to->points[2 * i + 1]);
    }
    to->n_points = FLUX_LIVE_POINTS / 2;
    to->stride *= 2;
  }
  to->points[to->n_points++] = *p;
}

/* Rests do not count. */
static void
count_time (FluxLive *self, const FluxReportStep *s)
{
  gint64 now = g_get_monotonic_time ();
  double a_step = s->seconds;

  if (self->last_time != 0) {
    self->active += (double)(now - self->last_time) / G_USEC_PER_SEC;
    self->n_active++;
    a_step = self->active / (double)self->n_active;
  }
  self->last_time = now;
  self->numbers.seconds_left =
      s->step < s->max_steps ? (gint64)(a_step * (double)(s->max_steps - s->step)) : 0;
}

void
flux_live_step (FluxLive *self, const FluxReportStep *s)
{
  const Point p = {s->step, 1, s->loss, s->learning_rate};

  g_mutex_lock (&self->lock);
  self->numbers.step = *s;
  add_point (&self->numbers, &p);
  count_time (self, s);
  g_mutex_unlock (&self->lock);
}

void
flux_live_paired_loss (FluxLive *self, guint64 step, double loss)
{
  Numbers *n = &self->numbers;

  g_mutex_lock (&self->lock);
  if (n->n_paired == FLUX_LIVE_PAIRED) {
    memmove (&n->paired[1], &n->paired[2], (FLUX_LIVE_PAIRED - 2) * sizeof (Paired));
    n->n_paired--;
  }
  n->paired[n->n_paired++] = (Paired){step, loss};
  g_mutex_unlock (&self->lock);
}

void
flux_live_state (FluxLive *self, const char *state)
{
  gint64 now = g_get_monotonic_time ();

  g_mutex_lock (&self->lock);
  if (self->rest_since != 0 && self->last_time != 0)
    self->last_time += now - self->rest_since;
  self->rest_since = strcmp (state, FLUX_REPORT_PAUSED) == 0 ? now : 0;
  self->numbers.state = g_intern_string (state);
  g_mutex_unlock (&self->lock);
}

void
flux_live_saved (FluxLive *self, guint64 step)
{
  g_mutex_lock (&self->lock);
  self->numbers.saved_step = step;
  g_mutex_unlock (&self->lock);
}

void
flux_live_image (FluxLive *self, const FluxReportImage *image)
{
  const FluxReportPicture *from = image->picture;
  Picture *p = g_new0 (Picture, 1);
  const char *prompt = from->prompt != NULL ? from->prompt : "";
  g_autofree char *start = g_strndup (prompt, MAX_PROMPT);

  p->step = from->step;
  p->width = from->width;
  p->height = from->height;
  p->prompt = g_utf8_make_valid (start, -1);
  p->png = g_bytes_ref (image->png);
  g_mutex_lock (&self->lock);
  p->id = self->next_id++;
  g_queue_push_tail (&self->pictures, p);
  self->picture_bytes += g_bytes_get_size (p->png);
  while (
      self->pictures.length > 1 && (self->pictures.length > FLUX_LIVE_PICTURES ||
                                       self->picture_bytes > FLUX_LIVE_PICTURE_BYTES)) {
    Picture *oldest = g_queue_pop_head (&self->pictures);

    self->picture_bytes -= g_bytes_get_size (oldest->png);
    picture_free (oldest);
  }
  g_mutex_unlock (&self->lock);
}

/* ---- looking ---- */

GBytes *
flux_live_get_settings (FluxLive *self)
{
  return g_bytes_ref (self->settings);
}

GBytes *
flux_live_get_picture (FluxLive *self, guint64 id)
{
  GBytes *png = NULL;

  g_mutex_lock (&self->lock);
  for (const GList *l = self->pictures.head; l != NULL && png == NULL; l = l->next)
    if (((const Picture *)l->data)->id == id)
      png = g_bytes_ref (((const Picture *)l->data)->png);
  g_mutex_unlock (&self->lock);
  return png;
}

static void
open_array (JsonBuilder *b, const char *name)
{
  json_builder_set_member_name (b, name);
  json_builder_begin_array (b);
}

/* A double of each point as an array. */
static void
add_curve (JsonBuilder *b, const char *name, const Numbers *n, guint from, gsize offset)
{
  open_array (b, name);
  for (guint i = from; i < n->n_points; i++)
    flux_report_json_number (b, NULL, G_STRUCT_MEMBER (double, &n->points[i], offset));
  json_builder_end_array (b);
}

static void
add_points (JsonBuilder *b, const Numbers *n, guint from)
{
  json_builder_set_member_name (b, "curve");
  json_builder_begin_object (b);
  flux_report_json_integer (b, "stride", n->stride);
  flux_report_json_integer (b, "from", from);
  open_array (b, "step");
  for (guint i = from; i < n->n_points; i++)
    json_builder_add_int_value (b, (gint64)n->points[i].step);
  json_builder_end_array (b);
  add_curve (b, "loss", n, from, G_STRUCT_OFFSET (Point, loss));
  add_curve (b, "learning_rate", n, from, G_STRUCT_OFFSET (Point, learning_rate));
  json_builder_end_object (b);
  open_array (b, "paired");
  for (guint i = 0; i < n->n_paired; i++) {
    json_builder_begin_array (b);
    json_builder_add_int_value (b, (gint64)n->paired[i].step);
    flux_report_json_number (b, NULL, n->paired[i].loss);
    json_builder_end_array (b);
  }
  json_builder_end_array (b);
}

/* With the lock. */
static void
add_pictures (FluxLive *self, JsonBuilder *b)
{
  open_array (b, "pictures");
  for (const GList *l = self->pictures.head; l != NULL; l = l->next) {
    const Picture *p = l->data;

    json_builder_begin_object (b);
    flux_report_json_integer (b, "id", p->id);
    flux_report_json_integer (b, "step", p->step);
    json_builder_set_member_name (b, "prompt");
    json_builder_add_string_value (b, p->prompt);
    flux_report_json_integer (b, "width", p->width);
    flux_report_json_integer (b, "height", p->height);
    json_builder_end_object (b);
  }
  json_builder_end_array (b);
}

GBytes *
flux_live_get_json (FluxLive *self, guint64 stride, guint64 from)
{
  JsonBuilder *b = json_builder_new ();
  g_autofree Numbers *n = g_new (Numbers, 1);

  json_builder_begin_object (b);
  g_mutex_lock (&self->lock);
  *n = self->numbers;
  add_pictures (self, b);
  g_mutex_unlock (&self->lock);
  json_builder_set_member_name (b, "state");
  json_builder_add_string_value (b, n->state);
  flux_report_json_integer (b, "saved_step", n->saved_step);
  if (n->n_points > 0)
    flux_report_json_step (b, &n->step);
  if (n->seconds_left >= 0)
    flux_report_json_integer (b, "seconds_left", (guint64)n->seconds_left);
  add_points (b, n, stride == n->stride && from <= n->n_points ? (guint)from : 0);
  return end_json (b);
}
