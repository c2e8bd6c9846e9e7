/* examples/preview-app/window.c: the window: settings above, pictures and loss in the
 * middle, what the next picture shows below. SPDX-License-Identifier: LGPL-2.1-or-later
 */
#include "window.h"

#include <glib-unix.h>
#include <signal.h>

#include "chart.h"

#define BIG 420   /* pixels: the latest picture */
#define SMALL 104 /* and earlier ones */

typedef struct {
  WindowOptions options;
  gboolean *failed;
  Training *training;         /* NULL: none runs */
  gboolean stopping, closing; /* closing: when the training has been saved */
  guint screenshot_timer, interrupt;
  char *folder, *saved;
  Chart chart;
  GtkWidget *window, *folder_button, *button, *info, *info_text;
  GtkWidget *picture, *caption, *strip; /* the strip has the newest first */
  GtkWidget *prompt, *seed, *scale, *bar;
} Window;

/* ---- telling ---- */

static void
show_info (Window *self, GtkMessageType type, const char *text)
{
  gtk_info_bar_set_message_type (GTK_INFO_BAR (self->info), type);
  gtk_label_set_text (GTK_LABEL (self->info_text), text);
  gtk_info_bar_set_revealed (GTK_INFO_BAR (self->info), TRUE);
}

/* The button does the one thing that can be done now. */
static void
update_buttons (Window *self)
{
  gboolean runs = self->training != NULL;

  gtk_button_set_label (GTK_BUTTON (self->button), runs ? "Stop and save" : "Start");
  gtk_widget_remove_css_class (
      self->button, runs ? "suggested-action" : "destructive-action");
  gtk_widget_add_css_class (
      self->button, runs ? "destructive-action" : "suggested-action");
  gtk_widget_set_sensitive (self->button, runs ? !self->stopping : self->folder != NULL);
  gtk_widget_set_sensitive (self->folder_button, !runs);
}

static void
show_folder (Window *self)
{
  g_autofree char *name =
      self->folder != NULL ? g_path_get_basename (self->folder) : NULL;

  gtk_button_set_label (
      GTK_BUTTON (self->folder_button), name != NULL ? name : "Choose pictures…");
  gtk_widget_set_tooltip_text (self->folder_button, self->folder);
  update_buttons (self);
}

/* ---- events of the training ---- */

static void
set_bar (Window *self, double fraction, const char *text)
{
  gtk_progress_bar_set_fraction (GTK_PROGRESS_BAR (self->bar), fraction);
  gtk_progress_bar_set_text (GTK_PROGRESS_BAR (self->bar), text);
}

static void
stop (Window *self)
{
  self->stopping = TRUE;
  update_buttons (self);
  training_stop (self->training);
}

static void
on_step (const TrainingStep *step, gpointer data)
{
  Window *self = data;
  g_autoptr (GString) text = g_string_new (NULL);

  g_string_printf (text,
      "Step %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT "   loss %.4f", step->step,
      step->of, step->loss);
  if (step->seconds_left >= 0) {
    guint64 s = (guint64)(step->seconds_left + 0.5);

    g_string_append_printf (text, "   %u:%02u:%02u left", (guint)(s / 3600),
        (guint)(s / 60 % 60), (guint)(s % 60));
  }
  set_bar (self, (double)step->step / (double)step->of, text->str);
  chart_add (&self->chart, step->loss);
  if (step->step == self->options.stop_at)
    stop (self);
}

static void
on_picture (
    GdkTexture *texture, const char *prompt, guint64 step, double scale, gpointer data)
{
  Window *self = data;
  g_autofree char *text =
      g_strdup_printf (scale == 1 ? "Step %" G_GUINT64_FORMAT "   %s"
                                  : "Step %" G_GUINT64_FORMAT "   %s   adapter × %.2f",
          step, prompt, scale);
  g_autofree char *number = g_strdup_printf ("%" G_GUINT64_FORMAT, step);
  GtkWidget *box = gtk_box_new (GTK_ORIENTATION_VERTICAL, 2);
  GtkWidget *small = gtk_picture_new_for_paintable (GDK_PAINTABLE (texture));
  GtkWidget *label = gtk_label_new (number);

  gtk_picture_set_paintable (GTK_PICTURE (self->picture), GDK_PAINTABLE (texture));
  gtk_label_set_text (GTK_LABEL (self->caption), text);
  gtk_widget_set_size_request (small, SMALL, SMALL);
  gtk_widget_set_tooltip_text (box, text);
  gtk_widget_add_css_class (label, "dim-label");
  gtk_box_append (GTK_BOX (box), small);
  gtk_box_append (GTK_BOX (box), label);
  gtk_box_prepend (GTK_BOX (self->strip), box);
}

static void
on_activity (const char *text, gpointer data)
{
  gtk_progress_bar_set_text (GTK_PROGRESS_BAR (((Window *)data)->bar), text);
}

static void
on_saved (const char *path, gpointer data)
{
  Window *self = data;

  g_free (self->saved);
  self->saved = g_strdup (path);
}

static gboolean
take_screenshot (gpointer data)
{
  Window *self = data;
  int width = gtk_widget_get_width (self->window),
      height = gtk_widget_get_height (self->window);
  GdkPaintable *paintable = gtk_widget_paintable_new (self->window);
  GtkSnapshot *snapshot = gtk_snapshot_new ();
  GskRenderer *renderer = gtk_native_get_renderer (GTK_NATIVE (self->window));
  GskRenderNode *node;
  GdkTexture *texture;

  self->screenshot_timer = 0;
  gdk_paintable_snapshot (paintable, snapshot, width, height);
  node = gtk_snapshot_free_to_node (snapshot);
  texture = gsk_renderer_render_texture (
      renderer, node, &GRAPHENE_RECT_INIT (0, 0, (float)width, (float)height));
  if (!gdk_texture_save_to_png (texture, self->options.screenshot))
    *self->failed = TRUE;
  g_object_unref (texture);
  gsk_render_node_unref (node);
  g_object_unref (paintable);
  gtk_window_close (GTK_WINDOW (self->window));
  return G_SOURCE_REMOVE;
}

static void
on_ended (const GError *error, gpointer data)
{
  Window *self = data;
  g_autofree char *text = NULL;

  g_clear_pointer (&self->training, training_free);
  self->stopping = FALSE;
  update_buttons (self);
  if (self->closing && error == NULL) {
    gtk_window_close (GTK_WINDOW (self->window));
    return;
  }
  self->closing = FALSE;
  if (error != NULL) {
    *self->failed = TRUE;
    show_info (self, GTK_MESSAGE_ERROR, error->message);
    set_bar (self, 0, "Stopped by an error");
  } else if (self->saved != NULL) {
    text = g_strdup_printf ("The adapter is saved: %s", self->saved);
    on_activity ("Done", self);
    show_info (self, GTK_MESSAGE_OTHER, text);
  } else {
    show_info (self, GTK_MESSAGE_OTHER, "Stopped before anything was learnt.");
  }
  /* When what has changed is drawn. */
  if (self->options.screenshot != NULL)
    self->screenshot_timer = g_timeout_add (700, take_screenshot, self);
}

static const TrainingEvents events = {
    on_step, on_picture, on_activity, on_saved, on_ended};

/* ---- what the user does ---- */

static const char *
get_prompt (Window *self)
{
  return gtk_editable_get_text (GTK_EDITABLE (self->prompt));
}

/* The sampler takes prompt, seed and scale for its next picture. */
static void
on_changed (GtkWidget *widget, gpointer data)
{
  Window *self = data;

  if (self->training != NULL)
    training_set_picture (self->training, get_prompt (self),
        (guint64)gtk_spin_button_get_value (GTK_SPIN_BUTTON (self->seed)),
        gtk_range_get_value (GTK_RANGE (self->scale)));
}

static void
start (Window *self)
{
  GError *error = NULL;
  GtkWidget *child;

  gtk_info_bar_set_revealed (GTK_INFO_BAR (self->info), FALSE);
  while ((child = gtk_widget_get_first_child (self->strip)) != NULL)
    gtk_box_remove (GTK_BOX (self->strip), child);
  chart_clear (&self->chart, self->options.settings.steps);
  g_clear_pointer (&self->saved, g_free);
  set_bar (self, 0, "Reading the pictures");
  self->options.settings.folder = self->folder;
  self->training =
      training_new (&self->options.settings, get_prompt (self), &events, self, &error);
  if (self->training == NULL) {
    on_ended (error, self);
    g_error_free (error);
    return;
  }
  on_changed (NULL, self);
  update_buttons (self);
}

static void
on_button (GtkButton *button, gpointer data)
{
  Window *self = data;

  self->training != NULL ? stop (self) : start (self);
}

static void
on_folder_chosen (GtkNativeDialog *dialog, int response, gpointer data)
{
  Window *self = data;

  if (response == GTK_RESPONSE_ACCEPT) {
    g_autoptr (GFile) file = gtk_file_chooser_get_file (GTK_FILE_CHOOSER (dialog));

    g_free (self->folder);
    self->folder = g_file_get_path (file);
    show_folder (self);
  }
  g_object_unref (dialog);
}

static void
on_choose_folder (GtkButton *button, gpointer data)
{
  Window *self = data;
  GtkFileChooserNative *dialog =
      gtk_file_chooser_native_new ("A folder of captioned pictures",
          GTK_WINDOW (self->window), GTK_FILE_CHOOSER_ACTION_SELECT_FOLDER, NULL, NULL);

  g_signal_connect (dialog, "response", G_CALLBACK (on_folder_chosen), self);
  gtk_native_dialog_show (GTK_NATIVE_DIALOG (dialog));
}

static void
on_info_closed (GtkInfoBar *info, int response, gpointer data)
{
  gtk_info_bar_set_revealed (info, FALSE);
}

/* TRUE: not yet. Who closes it once more does not wait for the adapter. */
static gboolean
on_close (GtkWindow *window, gpointer data)
{
  Window *self = data;

  if (self->training == NULL || self->closing)
    return FALSE;
  self->closing = TRUE;
  show_info (self, GTK_MESSAGE_OTHER, "Saving. Close once more to stop at once.");
  if (!self->stopping)
    stop (self);
  return TRUE;
}

static gboolean
on_interrupt (gpointer data)
{
  gtk_window_close (GTK_WINDOW (((Window *)data)->window));
  return G_SOURCE_CONTINUE;
}

static void
on_destroy (GtkWidget *window, gpointer data)
{
  Window *self = data;

  g_source_remove (self->interrupt);
  if (self->screenshot_timer != 0)
    g_source_remove (self->screenshot_timer);
  training_free (self->training);
  g_free (self->folder);
  g_free (self->saved);
  g_free (self);
}

/* ---- how it looks ---- */

static GtkWidget *
make_header (Window *self)
{
  GtkWidget *header = gtk_header_bar_new ();

  self->folder_button = gtk_button_new ();
  g_signal_connect (self->folder_button, "clicked", G_CALLBACK (on_choose_folder), self);
  gtk_header_bar_pack_start (GTK_HEADER_BAR (header), self->folder_button);
  self->button = gtk_button_new ();
  g_signal_connect (self->button, "clicked", G_CALLBACK (on_button), self);
  gtk_header_bar_pack_end (GTK_HEADER_BAR (header), self->button);
  return header;
}

static GtkWidget *
make_info (Window *self)
{
  self->info = gtk_info_bar_new ();
  self->info_text = gtk_label_new (NULL);
  gtk_label_set_wrap (GTK_LABEL (self->info_text), TRUE);
  gtk_label_set_xalign (GTK_LABEL (self->info_text), 0);
  gtk_label_set_selectable (GTK_LABEL (self->info_text), TRUE);
  gtk_info_bar_add_child (GTK_INFO_BAR (self->info), self->info_text);
  gtk_info_bar_set_show_close_button (GTK_INFO_BAR (self->info), TRUE);
  gtk_info_bar_set_revealed (GTK_INFO_BAR (self->info), FALSE);
  g_signal_connect (self->info, "response", G_CALLBACK (on_info_closed), NULL);
  return self->info;
}

static GtkWidget *
make_pictures (Window *self)
{
  GtkWidget *box = gtk_box_new (GTK_ORIENTATION_VERTICAL, 8);

  self->picture = gtk_picture_new ();
  gtk_widget_set_size_request (self->picture, BIG, BIG);
  self->caption = gtk_label_new ("Pictures come while it learns");
  gtk_label_set_ellipsize (GTK_LABEL (self->caption), PANGO_ELLIPSIZE_END);
  gtk_box_append (GTK_BOX (box), self->picture);
  gtk_box_append (GTK_BOX (box), self->caption);
  return box;
}

static GtkWidget *
make_course (Window *self)
{
  GtkWidget *box = gtk_box_new (GTK_ORIENTATION_VERTICAL, 8);
  GtkWidget *title = gtk_label_new ("Loss");
  GtkWidget *scroller = gtk_scrolled_window_new ();

  gtk_widget_add_css_class (title, "heading");
  gtk_widget_set_halign (title, GTK_ALIGN_START);
  chart_init (&self->chart);
  gtk_widget_set_vexpand (self->chart.area, TRUE);
  gtk_widget_set_hexpand (self->chart.area, TRUE);
  gtk_widget_set_size_request (self->chart.area, 420, 200);
  self->strip = gtk_box_new (GTK_ORIENTATION_HORIZONTAL, 8);
  gtk_scrolled_window_set_policy (
      GTK_SCROLLED_WINDOW (scroller), GTK_POLICY_AUTOMATIC, GTK_POLICY_NEVER);
  gtk_scrolled_window_set_child (GTK_SCROLLED_WINDOW (scroller), self->strip);
  gtk_widget_set_size_request (scroller, -1, SMALL + 34);
  gtk_box_append (GTK_BOX (box), title);
  gtk_box_append (GTK_BOX (box), self->chart.area);
  gtk_box_append (GTK_BOX (box), scroller);
  return box;
}

static GtkWidget *
make_controls (Window *self)
{
  GtkWidget *box = gtk_box_new (GTK_ORIENTATION_HORIZONTAL, 8);

  self->prompt = gtk_entry_new ();
  gtk_editable_set_text (GTK_EDITABLE (self->prompt), self->options.prompt);
  gtk_widget_set_hexpand (self->prompt, TRUE);
  self->seed = gtk_spin_button_new_with_range (0, 999999, 1);
  self->scale = gtk_scale_new_with_range (GTK_ORIENTATION_HORIZONTAL, 0, 2, 0.05);
  gtk_range_set_value (GTK_RANGE (self->scale), 1);
  gtk_scale_set_draw_value (GTK_SCALE (self->scale), TRUE);
  gtk_scale_set_value_pos (GTK_SCALE (self->scale), GTK_POS_RIGHT);
  gtk_scale_add_mark (GTK_SCALE (self->scale), 1, GTK_POS_BOTTOM, NULL);
  gtk_widget_set_size_request (self->scale, 180, -1);
  g_signal_connect (self->prompt, "changed", G_CALLBACK (on_changed), self);
  g_signal_connect (self->seed, "value-changed", G_CALLBACK (on_changed), self);
  g_signal_connect (self->scale, "value-changed", G_CALLBACK (on_changed), self);
  gtk_box_append (GTK_BOX (box), gtk_label_new ("Next picture"));
  gtk_box_append (GTK_BOX (box), self->prompt);
  gtk_box_append (GTK_BOX (box), gtk_label_new ("Seed"));
  gtk_box_append (GTK_BOX (box), self->seed);
  gtk_box_append (GTK_BOX (box), gtk_label_new ("Adapter"));
  gtk_box_append (GTK_BOX (box), self->scale);
  return box;
}

static GtkWidget *
make_content (Window *self)
{
  GtkWidget *all = gtk_box_new (GTK_ORIENTATION_VERTICAL, 0);
  GtkWidget *box = gtk_box_new (GTK_ORIENTATION_VERTICAL, 14);
  GtkWidget *middle = gtk_box_new (GTK_ORIENTATION_HORIZONTAL, 18);

  gtk_widget_set_margin_start (box, 16);
  gtk_widget_set_margin_end (box, 16);
  gtk_widget_set_margin_top (box, 14);
  gtk_widget_set_margin_bottom (box, 16);
  gtk_box_append (GTK_BOX (middle), make_pictures (self));
  gtk_box_append (GTK_BOX (middle), make_course (self));
  self->bar = gtk_progress_bar_new ();
  gtk_progress_bar_set_show_text (GTK_PROGRESS_BAR (self->bar), TRUE);
  set_bar (self, 0, "Choose a folder of captioned pictures, then Start");
  gtk_box_append (GTK_BOX (box), middle);
  gtk_box_append (GTK_BOX (box), make_controls (self));
  gtk_box_append (GTK_BOX (box), self->bar);
  gtk_box_append (GTK_BOX (all), make_info (self));
  gtk_box_append (GTK_BOX (all), box);
  return all;
}

void
window_open (GtkApplication *app, const WindowOptions *options, gboolean *failed)
{
  Window *self = g_new0 (Window, 1);

  self->options = *options;
  self->failed = failed;
  self->folder = g_strdup (options->settings.folder);
  self->window = gtk_application_window_new (app);
  gtk_window_set_title (GTK_WINDOW (self->window), "FLUX LoRA trainer");
  gtk_window_set_titlebar (GTK_WINDOW (self->window), make_header (self));
  gtk_window_set_child (GTK_WINDOW (self->window), make_content (self));
  gtk_window_set_default_size (GTK_WINDOW (self->window), 1000, -1);
  g_signal_connect (self->window, "close-request", G_CALLBACK (on_close), self);
  g_signal_connect (self->window, "destroy", G_CALLBACK (on_destroy), self);
  self->interrupt = g_unix_signal_add (SIGINT, on_interrupt, self);
  show_folder (self);
  gtk_window_present (GTK_WINDOW (self->window));
  if (options->start && self->folder != NULL)
    start (self);
}
