/* gstfluxtrainsink-push.c: what push-to-hub asks for. SPDX-License-Identifier:
 * LGPL-2.1-or-later */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elements/gstfluxtrainsink-private.h"
#include "flux/hub/push.h"

#define GST_CAT_DEFAULT gst_flux_train_sink_debug

/* ---- what the card tells ---- */

/* Numbers and choices; of the texts only one says nothing of this machine. */
static gboolean
is_told (const GParamSpec *spec)
{
  static const gchar *const own[] = {"report-to", "push-private", "checkpoint-interval",
      "checkpoints-limit", "http-port"};

  for (guint i = 0; i < G_N_ELEMENTS (own); i++)
    if (strcmp (spec->name, own[i]) == 0)
      return FALSE;
  return gst_flux_train_sink_is_setting (spec) &&
         (spec->value_type != G_TYPE_STRING || strcmp (spec->name, "targets") == 0);
}

static void
tell_settings (GstFluxTrainSink *self)
{
  guint n;
  GParamSpec **specs = g_object_class_list_properties (G_OBJECT_GET_CLASS (self), &n);

  for (guint i = 0; i < n; i++) {
    GValue value = G_VALUE_INIT;
    g_autofree gchar *text = NULL;

    if (!is_told (specs[i]))
      continue;
    g_value_init (&value, specs[i]->value_type);
    g_object_get_property (G_OBJECT (self), specs[i]->name, &value);
    text = G_VALUE_HOLDS_STRING (&value) ? g_value_dup_string (&value)
                                         : gst_value_serialize (&value);
    if (text != NULL)
      flux_card_add_setting (self->card, specs[i]->name, text);
    g_value_unset (&value);
  }
  g_free (specs);
}

gboolean
gst_flux_train_sink_start_push (GstFluxTrainSink *self, GError **error)
{
  if (self->push_to_hub == NULL)
    return TRUE;
  if (!flux_hub_check_push (self->push_to_hub, error))
    return FALSE;
  self->card = flux_card_new ();
  return TRUE;
}

void
gst_flux_train_sink_end_push (GstFluxTrainSink *self)
{
  g_clear_pointer (&self->card, flux_card_free);
}

void
gst_flux_train_sink_note_step (GstFluxTrainSink *self, const FluxStepResult *result,
    FluxSample *const *samples, guint n)
{
  if (self->card == NULL)
    return;
  flux_card_add_step (self->card, result->step, result->loss);
  for (guint i = 0; i < n && self->epoch == 0; i++)
    flux_card_add_caption (self->card, samples[i]->caption);
}

void
gst_flux_train_sink_note_paired_loss (GstFluxTrainSink *self, guint64 step, gdouble loss)
{
  if (self->card != NULL)
    flux_card_add_paired_loss (self->card, step, loss);
}

void
gst_flux_train_sink_note_picture (
    GstFluxTrainSink *self, const FluxReportPicture *picture)
{
  GError *error = NULL;

  if (self->card != NULL && !flux_card_add_picture (self->card, picture, &error))
    gst_flux_post_warning (self, error);
}

/* ---- talking to the Hub ---- */

/* Ctrl-C, or leaving PAUSED; in PAUSED it rests, the connection does not. */
static gboolean
may_go_on (const char *what, gint percent, gpointer data)
{
  GstFluxTrainSink *self = data;

  return gst_flux_train_sink_may_go_on (self) && !g_atomic_int_get (&self->finish);
}

static gboolean
show (const char *what, gint percent, gpointer data)
{
  GstFluxTrainSink *self = data;

  return may_go_on (what, percent, data) &&
         gst_flux_progress_update (what, MAX (percent, 0), &self->pushing);
}

gboolean
gst_flux_train_sink_check_push (GstFluxTrainSink *self, GError **error)
{
  GError *failure = NULL;

  if (self->card == NULL ||
      flux_hub_check_token (self->push_to_hub, may_go_on, self, &failure))
    return TRUE;
  /* The network may be back in a few hours. */
  if (g_error_matches (failure, FLUX_ERROR, FLUX_ERROR_READ)) {
    g_prefix_error (&failure, "Whether the adapter can be pushed is not known. ");
    gst_flux_post_warning (self, failure);
    return TRUE;
  }
  g_propagate_error (error, failure);
  return FALSE;
}

static GPtrArray *
collect (GstFluxTrainSink *self, const gchar *path)
{
  GPtrArray *files =
      g_ptr_array_new_with_free_func ((GDestroyNotify)flux_hub_upload_free);
  g_autofree gchar *name = NULL;
  g_autofree gchar *base = flux_card_base_model (self->model);
  FluxCardText text = {self->push_to_hub, base, self->trigger_words, NULL};

  /* diffusers looks for this name when it is not told another. */
  name = self->lora_format == FLUX_LORA_DIFFUSERS ? g_strdup (FLUX_LORA_FILE)
                                                  : g_path_get_basename (path);
  flux_hub_upload_add (files, name, path);
  text.weights = name;
  tell_settings (self);
  flux_card_finish (self->card, &text, files);
  return files;
}

static gchar *
send_files (GstFluxTrainSink *self, GPtrArray *files, GError **error)
{
  FluxHubPush push = {
      self->push_to_hub, self->push_private, "Trained with gst-flux", files};
  GError *failure = NULL;
  gchar *page;

  gst_flux_progress_init (&self->pushing, GST_ELEMENT (self), "push", NULL);
  gst_flux_progress_update (self->push_to_hub, 0, &self->pushing);
  page = flux_hub_push (&push, show, self, &failure);
  gst_flux_progress_end (&self->pushing, page != NULL ? page : "stopped", failure);
  if (failure != NULL)
    g_propagate_error (error, failure);
  return page;
}

static void
tell_not_pushed (GstFluxTrainSink *self, const gchar *path)
{
  GST_ELEMENT_WARNING (self, RESOURCE, SETTINGS,
      ("The adapter was not pushed to %s, because somebody stopped: 'gst-flux push %s "
       "%s' "
       "does it.",
          self->push_to_hub, path, self->push_to_hub),
      (NULL));
}

gboolean
gst_flux_train_sink_push (GstFluxTrainSink *self, GError **error)
{
  g_autofree gchar *path = NULL, *page = NULL;
  g_autoptr (GPtrArray) files = NULL;
  GError *failure = NULL;

  if (self->card == NULL || gst_flux_train_sink_get_step (self) == 0)
    return TRUE;
  path = gst_flux_train_sink_get_lora_path (self);
  if (g_atomic_int_get (&self->finish)) {
    tell_not_pushed (self, path);
    return TRUE;
  }
  files = collect (self, path);
  page = send_files (self, files, &failure);
  if (page != NULL) {
    gst_element_post_message (GST_ELEMENT (self),
        gst_message_new_element (GST_OBJECT (self),
            gst_structure_new ("flux-push", "location", G_TYPE_STRING, page, NULL)));
    return TRUE;
  }
  if (g_error_matches (failure, FLUX_ERROR, FLUX_ERROR_CANCELLED)) {
    gboolean finish = g_atomic_int_get (&self->finish);

    if (finish)
      tell_not_pushed (self, path);
    else
      g_propagate_error (error, g_error_copy (failure));
    g_error_free (failure);
    return finish;
  }
  g_set_error (error, failure->domain, failure->code,
      "The adapter is saved in '%s', but not on the Hub: %s Then 'gst-flux push %s %s' "
      "sends it.",
      path, failure->message, path, self->push_to_hub);
  g_error_free (failure);
  return FALSE;
}
