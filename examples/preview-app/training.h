/* examples/preview-app/training.h: a training and its pictures, without a window.
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * One pipeline: a branch that trains, and a source that draws how it comes along.
 *
 *   fluxdatasetsrc ! fluximagedec ! fluximagecrop ! fluxvaeenc ! fluxembed !
 * fluxtrainsink fluxsamplersrc every-steps=N ! queue ! videoconvert ! appsink
 *
 * Everything below is called, and calls back, in the thread of the main context. */
#pragma once

#include <gtk/gtk.h>

G_BEGIN_DECLS

typedef struct {
  const char *model;  /* folder, or hf://user/name */
  const char *folder; /* the captioned pictures */
  const char *output; /* the LoRA, a .safetensors file */
  guint64 steps, every;
  int width, height; /* pixels, multiples of 16 */
  int tokens;        /* of the text encoder */
  double learning_rate;
} TrainingSettings;

typedef struct {
  guint64 step, of; /* that is done */
  double loss;
  double seconds_left; /* below 0: not known yet */
} TrainingStep;

typedef struct {
  void (*step) (const TrainingStep *step, gpointer data);
  /* scale: how much of the adapter is in it. */
  void (*picture) (
      GdkTexture *picture, const char *prompt, guint64 step, double scale, gpointer data);
  void (*activity) (const char *text, gpointer data); /* loading, encoding, saving */
  void (*saved) (const char *path, gpointer data);
  void (*ended) (const GError *error, gpointer data); /* once; NULL: all went well */
} TrainingEvents;

typedef struct _Training Training;

/* NULL with an error when the elements are not installed or it cannot start. */
Training *training_new (const TrainingSettings *settings, const char *prompt,
    const TrainingEvents *events, gpointer data, GError **error);
/* What the next picture shows; at any time. */
void
training_set_picture (Training *self, const char *prompt, guint64 seed, double scale);
/* Ends it after the step that runs; `saved` and `ended` come when it is written. */
void training_stop (Training *self);
/* At once. */
void training_free (Training *self);

G_END_DECLS
