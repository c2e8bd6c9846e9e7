/* examples/preview-app/main.c: pick a folder of captioned pictures, train, watch loss and
 * pictures, stop and save. SPDX-License-Identifier: LGPL-2.1-or-later
 *
 *   preview-app --model=FLUX.1-dev --folder=mucha --output=mucha.safetensors --start */
#include <gst/gst.h>

#include "window.h"

typedef struct {
  WindowOptions options;
  gboolean failed;
} App;

static void
on_activate (GtkApplication *app, gpointer data)
{
  App *self = data;

  window_open (app, &self->options, &self->failed);
}

int
main (int argc, char **argv)
{
  App self = {{.settings = {.model = "FLUX.1-dev",
                   .output = "pytorch_lora_weights.safetensors",
                   .width = 512,
                   .height = 512,
                   .tokens = 77,
                   .learning_rate = 1e-4},
      .prompt = "a puppy in a pond"}};
  WindowOptions *o = &self.options;
  TrainingSettings *s = &o->settings;
  gint64 steps = 700, every = 50, stop_at = 0;
  const GOptionEntry entries[] = {{"model", 'm', 0, G_OPTION_ARG_STRING, &s->model,
                                      "Folder, or hf://user/name", "MODEL"},
      {"folder", 'f', 0, G_OPTION_ARG_FILENAME, &s->folder, "Captioned pictures",
          "FOLDER"},
      {"output", 'o', 0, G_OPTION_ARG_FILENAME, &s->output, "The LoRA to write", "FILE"},
      {"prompt", 'p', 0, G_OPTION_ARG_STRING, &o->prompt, "What pictures show", "TEXT"},
      {"steps", 0, 0, G_OPTION_ARG_INT64, &steps, "Of training (700)", "N"},
      {"every", 0, 0, G_OPTION_ARG_INT64, &every, "Steps between pictures (50)", "N"},
      {"width", 0, 0, G_OPTION_ARG_INT, &s->width, "Pixels (512)", "N"},
      {"height", 0, 0, G_OPTION_ARG_INT, &s->height, "Pixels (512)", "N"},
      {"tokens", 0, 0, G_OPTION_ARG_INT, &s->tokens, "Of text (77)", "N"},
      {"learning-rate", 0, 0, G_OPTION_ARG_DOUBLE, &s->learning_rate, "(0.0001)", "X"},
      {"start", 0, 0, G_OPTION_ARG_NONE, &o->start, "Start at once", NULL},
      {"stop-at", 0, 0, G_OPTION_ARG_INT64, &stop_at, "Stop and save at that step", "N"},
      {"screenshot", 0, 0, G_OPTION_ARG_FILENAME, &o->screenshot,
          "At the end save a PNG of the window, and quit", "FILE"},
      {NULL}};
  g_autoptr (GOptionContext) context = g_option_context_new (NULL);
  g_autoptr (GError) error = NULL;
  GtkApplication *app;
  int status;

  g_option_context_add_main_entries (context, entries, NULL);
  g_option_context_add_group (context, gst_init_get_option_group ());
  if (!g_option_context_parse (context, &argc, &argv, &error)) {
    g_printerr ("preview-app: %s\n", error->message);
    return 2;
  }
  if (MIN (steps, every) < 1 || MIN (MIN (s->width, s->height), s->tokens) < 1 ||
      stop_at < 0) {
    g_printerr ("preview-app: --steps, --every, --width, --height, --tokens and "
                "--stop-at take a positive number.\n");
    return 2;
  }
  s->steps = (guint64)steps;
  s->every = (guint64)every;
  o->stop_at = (guint64)stop_at;
  app = gtk_application_new (NULL, G_APPLICATION_NON_UNIQUE);
  g_signal_connect (app, "activate", G_CALLBACK (on_activate), &self);
  status = g_application_run (G_APPLICATION (app), 1, argv);
  g_object_unref (app);
  return status != 0 ? status : self.failed ? 1 : 0;
}
