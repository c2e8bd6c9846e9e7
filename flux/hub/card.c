/* flux/hub/card.c: what a model card tells of a training, as it comes.
 * SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flux/hub/card.h"

#include <string.h>

#include "flux/hub/card-private.h"

static void
picture_free (gpointer data)
{
  FluxCardPicture *self = data;

  g_free (self->prompt);
  g_free (self->path);
  g_clear_pointer (&self->png, g_bytes_unref);
  g_free (self);
}

FluxCard *
flux_card_new (void)
{
  FluxCard *self = g_new0 (FluxCard, 1);

  g_mutex_init (&self->lock);
  self->losses = g_array_new (FALSE, FALSE, sizeof (FluxCardLoss));
  self->paired = g_array_new (FALSE, FALSE, sizeof (FluxCardLoss));
  self->pictures = g_ptr_array_new_with_free_func (picture_free);
  self->settings = g_ptr_array_new_with_free_func (g_free);
  return self;
}

void
flux_card_free (FluxCard *self)
{
  if (self == NULL)
    return;
  g_array_unref (self->losses);
  g_array_unref (self->paired);
  g_ptr_array_unref (self->pictures);
  g_ptr_array_unref (self->settings);
  g_strfreev (self->head);
  g_strfreev (self->tail);
  g_mutex_clear (&self->lock);
  g_free (self);
}

void
flux_card_add_caption (FluxCard *self, const char *caption)
{
  g_mutex_lock (&self->lock);
  if (caption != NULL)
    flux_card_share_words (self, caption);
  g_mutex_unlock (&self->lock);
}

void
flux_card_add_step (FluxCard *self, guint64 step, double loss)
{
  FluxCardLoss l = {step, loss};

  g_mutex_lock (&self->lock);
  g_array_append_val (self->losses, l);
  g_mutex_unlock (&self->lock);
}

void
flux_card_add_paired_loss (FluxCard *self, guint64 step, double loss)
{
  FluxCardLoss l = {step, loss};

  g_mutex_lock (&self->lock);
  if (self->paired->len > 1)
    g_array_set_size (self->paired, 1);
  g_array_append_val (self->paired, l);
  g_mutex_unlock (&self->lock);
}

/* The one of this prompt, else a new one; NULL when there are enough. With the lock. */
static FluxCardPicture *
place_of (FluxCard *self, const char *prompt)
{
  FluxCardPicture *picture;

  for (guint i = 0; i < self->pictures->len; i++) {
    picture = self->pictures->pdata[i];
    if (g_strcmp0 (picture->prompt, prompt) == 0)
      return picture;
  }
  if (self->pictures->len == FLUX_CARD_MAX_PICTURES)
    return NULL;
  picture = g_new0 (FluxCardPicture, 1);
  picture->prompt = g_strdup (prompt);
  g_ptr_array_add (self->pictures, picture);
  return picture;
}

void
flux_card_add_file (FluxCard *self, const char *prompt, const char *path)
{
  FluxCardPicture *place;

  g_mutex_lock (&self->lock);
  place = place_of (self, prompt);
  if (place != NULL && place->png == NULL && place->path == NULL)
    place->path = g_strdup (path);
  g_mutex_unlock (&self->lock);
}

gboolean
flux_card_add_picture (FluxCard *self, const FluxReportPicture *picture, GError **error)
{
  GBytes *png = flux_report_png (picture, error);
  FluxCardPicture *place;

  if (png == NULL)
    return FALSE;
  g_mutex_lock (&self->lock);
  place = place_of (self, picture->prompt);
  if (place != NULL) {
    g_clear_pointer (&place->path, g_free);
    g_clear_pointer (&place->png, g_bytes_unref);
    place->png = g_steal_pointer (&png);
  }
  g_mutex_unlock (&self->lock);
  g_clear_pointer (&png, g_bytes_unref);
  return TRUE;
}

char *
flux_card_picture_path (const FluxCard *self, guint i)
{
  const FluxCardPicture *picture = self->pictures->pdata[i];

  return picture->path != NULL ? g_strdup (picture->path)
                               : g_strdup_printf ("samples/%u.png", i + 1);
}

void
flux_card_add_setting (FluxCard *self, const char *name, const char *value)
{
  g_mutex_lock (&self->lock);
  g_ptr_array_add (self->settings, g_strdup (name));
  g_ptr_array_add (self->settings, g_strdup (value));
  g_mutex_unlock (&self->lock);
}

static void
add_upload (GPtrArray *files, char *path, GBytes *bytes)
{
  FluxHubUpload *upload = g_new0 (FluxHubUpload, 1);

  upload->path = path;
  upload->bytes = bytes;
  g_ptr_array_add (files, upload);
}

void
flux_card_finish (FluxCard *self, const FluxCardText *text, GPtrArray *files)
{
  GBytes *chart;
  char *readme;

  g_mutex_lock (&self->lock);
  readme = flux_card_write_text (self, text);
  add_upload (files, g_strdup ("README.md"), g_bytes_new_take (readme, strlen (readme)));
  chart = flux_card_draw_loss (self);
  if (chart != NULL)
    add_upload (files, g_strdup ("loss.png"), chart);
  for (guint i = 0; i < self->pictures->len; i++) {
    const FluxCardPicture *picture = self->pictures->pdata[i];

    if (picture->png != NULL)
      add_upload (files, flux_card_picture_path (self, i), g_bytes_ref (picture->png));
  }
  g_mutex_unlock (&self->lock);
}
